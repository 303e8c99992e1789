"""A convolution of image pairs: linear in its input, so the shared half is computed once."""

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def paired_conv2d(shared: Tensor, each: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """`conv(shared) + conv(each)`, the first broadcast over the groups; documented in `reference.py`."""
    channels = shared.shape[1]
    of_shared = F.conv2d(shared, weight[:, :channels], bias, stride).movedim(1, -1)
    of_each = F.conv2d(each, weight[:, channels:], None, stride).movedim(1, -1)
    pairs: Tensor = _AddToEach.apply(of_each.reshape(-1, of_shared.numel()), of_shared.flatten())
    return pairs.view_as(of_each).movedim(-1, 1)


class _AddToEach(torch.autograd.Function):
    """A row added to every row."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, row: Tensor) -> Tensor:
        return rows + row

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        if not ctx.needs_input_grad[1]:
            return grad, None
        # A CPU sums a few rows one value at a time.
        return grad, grad.sum(0) if grad.is_cuda else reduce(torch.add, grad.unbind())
