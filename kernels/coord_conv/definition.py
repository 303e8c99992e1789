"""Coordinates as channels, so that a convolution can know where it is."""

import torch
from torch import Tensor


def append_coordinates(x: Tensor) -> Tensor:
    """Append two channels: x along the width, then y along the height, each linear in [-1, 1] (Liu et al., 2018).

    Args:
        x: (N, C, H, W).

    Returns:
        (N, C + 2, H, W).
    """
    n, _, height, width = x.shape
    across = torch.linspace(-1, 1, width, dtype=x.dtype, device=x.device)
    down = torch.linspace(-1, 1, height, dtype=x.dtype, device=x.device)
    return torch.cat([x, across.expand(n, 1, height, width), down.view(-1, 1).expand(n, 1, height, width)], dim=1)
