"""CoordConv whose coordinates, being constant, are convolved once instead of for every sample."""

import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels.coord_conv.definition import append_coordinates


def coord_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv(x) + conv(coordinates)`; documented at the definition."""
    channels, padding = x.shape[1], weight.shape[-1] // 2
    coordinates = append_coordinates(x[:1, :0])
    of_place = F.conv2d(coordinates, weight[:, channels:], bias, padding=padding)
    return F.conv2d(x, weight[:, :channels], None, padding=padding) + of_place
