"""A convolution of image pairs as it reads."""

import torch
import torch.nn.functional as F
from torch import Tensor


def paired_conv2d(shared: Tensor, each: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Stack `shared` before each of G batches, (G * N, D, H, W), on channels and convolve, without padding."""
    groups = each.shape[0] // shared.shape[0]
    return F.conv2d(torch.cat([shared.repeat(groups, 1, 1, 1), each], 1), weight, bias, stride)
