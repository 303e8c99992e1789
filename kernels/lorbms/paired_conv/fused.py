"""A convolution of image pairs: linear in its input, so the shared half is computed once."""

import torch.nn.functional as F
from torch import Tensor


def paired_conv2d(shared: Tensor, each: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """`conv(shared) + conv(each)`, the first broadcast over the groups; documented in `reference.py`."""
    n, channels = shared.shape[:2]
    of_shared = F.conv2d(shared, weight[:, :channels], bias, stride)
    of_each = F.conv2d(each, weight[:, channels:], None, stride)
    return (of_each.unflatten(0, (-1, n)) + of_shared).flatten(0, 1)
