"""Maximum over squares of four that remembers in one byte, not eight, which of the four it was.

Not for channels_last maps, for which torch's own pool is faster on a CPU.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def max_pool2x2(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H // 2, W // 2); documented at the definition. Differentiable once."""
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        return F.max_pool2d(x, 2)
    result: Tensor = _MaxPool.apply(x)
    return result


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        upper_left, upper_right, lower_left, lower_right = _corners(x)
        upper, lower = torch.maximum(upper_left, upper_right), torch.maximum(lower_left, lower_right)
        y = torch.maximum(upper, lower)
        # The first of equal values counts, as in torch's own pool.
        right = torch.where(lower > upper, lower_right > lower_left, upper_right > upper_left)
        which = (lower > upper).to(torch.uint8).mul_(2).add_(right)
        ctx.save_for_backward(which)
        ctx.like = torch.empty_like(x, device="meta")
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (which,) = ctx.saved_tensors
        dx = torch.zeros_like(ctx.like, dtype=grad.dtype, device=grad.device)
        for i, corner in enumerate(_corners(dx)):
            torch.mul(grad, which == i, out=corner)
        return dx


def _corners(x: Tensor) -> list[Tensor]:
    """Views of the four places of every square, in reading order."""
    H, W = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    return [x[:, :, i:H:2, j:W:2] for i in range(2) for j in range(2)]
