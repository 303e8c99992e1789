"""2x2 max pooling in Triton, in the memory layout that comes."""

from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.custom_op import triton_op
from lorbms_fast.kernels._common.layout import is_channels_last
from lorbms_fast.kernels._common.operation import by_kernels
from lorbms_fast.kernels.max_pool.fused import spread
from lorbms_fast.kernels.max_pool.triton import kernels

BLOCK = 1024


def max_pool2x2(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H // 2, W // 2), in x's memory layout; documented in `reference.py`."""
    y, _ = pool(x)
    return y


@triton_op("max_pool2x2")
def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest of each square; and which of its four it was, in reading order, uint8."""
    if x.numel() >= 2**31:
        raise NotImplementedError(f"{tuple(x.shape)}: 2^31 values or more are not supported")
    y, which = _empty_pooled(x)
    _, C, H, W = y.shape
    grid = (triton.cdiv(y.numel(), BLOCK),)
    kernels.forward[grid](x, y, which, x.stride(), y.numel(), C, H, W, is_channels_last(y), BLOCK)
    return y, which


@triton_op("max_pool2x2_backward")
def pool_backward(grad: Tensor, which: Tensor, height: int, width: int) -> Tensor:
    """Gradient of x, (N, C, height, width), in the pooled maps' memory layout."""
    dx = _empty_gradient(grad, which, height, width)
    kernels.backward[(triton.cdiv(dx.numel(), BLOCK),)](
        grad, which, dx, grad.stride(), which.stride(), dx.numel(), dx.shape[1], height, width, is_channels_last(dx),
        BLOCK,
    )  # fmt: skip
    return dx


def _empty(like: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Maps in the memory layout of others."""
    layout = torch.channels_last if is_channels_last(like) else torch.contiguous_format
    shape = (*like.shape[:2], height, width)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=layout)


@pool.register_fake
def _empty_pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    H, W = x.shape[2] // 2, x.shape[3] // 2
    return _empty(x, H, W, x.dtype), _empty(x, H, W, torch.uint8)


@pool_backward.register_fake
def _empty_gradient(grad: Tensor, which: Tensor, height: int, width: int) -> Tensor:
    return _empty(which, height, width, grad.dtype)


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    (x,) = inputs
    _, which = output
    ctx.mark_non_differentiable(which)
    ctx.save_for_backward(which)
    ctx.size = x.shape[2:]


def _backward(ctx: Any, grad: Tensor, _which: Tensor) -> Any:
    (which,) = ctx.saved_tensors
    return by_kernels(lambda: pool_backward(grad, which, *ctx.size), lambda: spread(grad, which, *ctx.size))


pool.register_autograd(_backward, setup_context=_save)
