"""A convolution of image pairs: linear in its input, so the shared half is computed once."""

import torch.nn.functional as F
from torch import Tensor


def paired_conv2d(shared: Tensor, each: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """`conv(shared) + conv(each)`, the first broadcast over the groups; documented in `reference.py`."""
    channels = shared.shape[1]
    of_shared = F.conv2d(shared, weight[:, :channels], bias, stride).movedim(1, -1)
    of_each = F.conv2d(each, weight[:, channels:], None, stride).movedim(1, -1)
    # A row a group, as it lies: torch would sum the gradient of five dimensions in one value at a time.
    pairs = of_each.reshape(-1, of_shared.numel()) + of_shared.flatten()
    return pairs.view_as(of_each).movedim(-1, 1)
