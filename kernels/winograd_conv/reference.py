"""A 3x3 or kx3x3 convolution."""

import torch.nn.functional as F
from torch import Tensor

Padding = tuple[int, ...]
"""Zeros on each side, for each dimension of positions."""


def winograd_conv(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding) -> Tensor:
    """(N, C, [D,] H, W) and (O, C, [k,] 3, 3) -> (N, O, *size), each side of k taps 2 padding + 1 - k longer."""
    return (F.conv2d if len(padding) == 2 else F.conv3d)(x, weight, bias, padding=padding)
