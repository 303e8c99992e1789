"""Resize convolution as the thesis describes it: enlarge by four, then a strided convolution."""

import torch.nn.functional as F
from torch import Tensor


def resize_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Double height and width: nearest-neighbour enlarging by 4, then a 3x3 convolution of stride 2, no bias.

    TensorFlow's SAME padding for stride 2 on an even size: nothing before, one row and column of zeros after
    (thesis, Table 3.3; Odena et al., "Deconvolution and checkerboard artifacts", 2016).
    """
    enlarged = F.interpolate(x, scale_factor=4, mode="nearest")
    return F.conv2d(F.pad(enlarged, (0, 1, 0, 1)), weight, stride=2)
