"""Coordinates as channels, so that a convolution can know where it is."""

import torch
import torch.nn.functional as F
from torch import Tensor


def append_coordinates(x: Tensor) -> Tensor:
    """Append x along the width, then y along the height, each linear in [-1, 1], to (N, C, H, W) (Liu et al., 2018)."""
    n, _, height, width = x.shape
    across = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device)
    down = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)
    return torch.cat([x, across.expand(n, 1, height, width), down.view(-1, 1).expand(n, 1, height, width)], dim=1)


def coord_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve x with its coordinates appended, by a weight (O, C + 2, k, k), padded to keep height and width."""
    return F.conv2d(append_coordinates(x), weight, bias, padding=weight.shape[-1] // 2)
