"""Nearest-neighbour enlarging by two, then a 3x3 convolution, as generators and U-Nets have it."""

import torch.nn.functional as F
from torch import Tensor


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """Double height and width, pad by one and convolve (Odena et al., 2016): (N, C, H, W) -> (N, O, 2 H, 2 W)."""
    mode = "constant" if padding_mode == "zeros" else padding_mode
    enlarged = F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv2d(F.pad(enlarged, (1, 1, 1, 1), mode=mode), weight, bias)
