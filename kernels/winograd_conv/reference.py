"""A 3x3 or kx3x3 convolution, of an image also with other edges than zeros, and of one that was enlarged."""

import torch.nn.functional as F
from torch import Tensor

Padding = tuple[int, ...]
"""Positions on each side, for each dimension of positions."""


def winograd_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, edges: str = "zeros", doubled: bool = False
) -> Tensor:
    """(N, C, [D,] H, W) and (O, C, [k,] 3, 3) -> (N, O, *size), each side of k taps 2 padding + 1 - k longer.

    `edges` are torch's padding modes, `doubled` enlarges height and width by two first, to the nearest neighbours.
    """
    if doubled:
        x = F.interpolate(x, scale_factor=2.0)
    if edges != "zeros":
        x, padding = padded(x, padding, edges), (0,) * len(padding)
    return (F.conv2d if len(padding) == 2 else F.conv3d)(x, weight, bias, padding=padding)


def padded(x: Tensor, padding: Padding, edges: str) -> Tensor:
    """Pad as torch's modes `reflect`, `replicate` and `circular` do."""
    return F.pad(x, [side for side in reversed(padding) for _ in range(2)], edges)
