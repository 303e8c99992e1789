"""Maximum over squares of four in Triton, in the memory layout that comes."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorbms_fast.kernels.operation import operation

BLOCK = 1024


@triton.jit
def _place(i, C, H, W, CHANNELS_LAST: tl.constexpr):
    """Sample, channel, row and column of the i-th value in memory."""
    if CHANNELS_LAST:
        return i // (H * W * C), i % C, i // (W * C) % H, i // C % W
    else:
        return i // (C * H * W), i // (H * W) % C, i // W % H, i % W


@triton.jit
def _at(n, c, h, w, strides):
    return n.to(tl.int64) * strides[0] + c * strides[1] + h * strides[2] + w * strides[3]


@triton.jit
def _greater(x, best):
    """Later values count only if greater; NaN counts, once, as greatest."""
    return (x > best) | ((x != x) & (best == best))


@triton.jit
def forward_program(
    x_ptr, y_ptr, which_ptr, x_strides, size, C, H, W, CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr
):
    """BLOCK values of y; H and W are y's."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n, c, h, w = _place(i, C, H, W, CHANNELS_LAST)
    corner = x_ptr + _at(n, c, 2 * h, 2 * w, x_strides)
    best = tl.load(corner, mask=i < size, other=0).to(tl.float32)
    which = tl.zeros((BLOCK,), tl.uint8)
    for k in tl.static_range(1, 4):
        at = corner + (k // 2) * x_strides[2] + (k % 2) * x_strides[3]
        x = tl.load(at, mask=i < size, other=0).to(tl.float32)
        which = tl.where(_greater(x, best), k, which).to(tl.uint8)
        best = tl.where(_greater(x, best), x, best)
    tl.store(y_ptr + i, best.to(y_ptr.dtype.element_ty), mask=i < size)
    tl.store(which_ptr + i, which, mask=i < size)


@triton.jit
def backward_program(
    grad_ptr,
    which_ptr,
    dx_ptr,
    grad_strides,
    which_strides,
    size,
    C,
    H,
    W,
    CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK values of dx; H and W are x's."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n, c, h, w = _place(i, C, H, W, CHANNELS_LAST)
    pooled = (i < size) & (h < H // 2 * 2) & (w < W // 2 * 2)
    which = tl.load(which_ptr + _at(n, c, h // 2, w // 2, which_strides), mask=pooled, other=4)
    chosen = which == h % 2 * 2 + w % 2
    grad = tl.load(grad_ptr + _at(n, c, h // 2, w // 2, grad_strides), mask=pooled & chosen, other=0)
    tl.store(dx_ptr + i, grad, mask=i < size)


def max_pool2x2(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H // 2, W // 2), in x's memory layout; documented at the definition."""
    y, _ = pool(x)
    return y


@operation("max_pool2x2")
def pool(x: Tensor) -> tuple[Tensor, Tensor]:
    """The greatest of each square; and which of its four it was, in reading order, uint8."""
    if x.numel() >= 2**31:
        raise ValueError(f"{tuple(x.shape)}: 2^31 values or more are not supported")
    y, which = _empty_pooled(x)
    _, C, H, W = y.shape
    grid = (triton.cdiv(y.numel(), BLOCK),)
    forward_program[grid](x, y, which, x.stride(), y.numel(), C, H, W, _is_channels_last(y), BLOCK)
    return y, which


@operation("max_pool2x2_backward")
def pool_backward(grad: Tensor, which: Tensor, height: int, width: int) -> Tensor:
    """Gradient of x, (N, C, height, width), in the pooled maps' memory layout."""
    dx = _empty_gradient(grad, which, height, width)
    backward_program[(triton.cdiv(dx.numel(), BLOCK),)](
        grad,
        which,
        dx,
        grad.stride(),
        which.stride(),
        dx.numel(),
        dx.shape[1],
        height,
        width,
        _is_channels_last(dx),
        BLOCK,
    )
    return dx


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _empty(like: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Maps in the memory layout of others."""
    layout = torch.channels_last if _is_channels_last(like) else torch.contiguous_format
    shape = (*like.shape[:2], height, width)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=layout)


def _empty_pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    H, W = x.shape[2] // 2, x.shape[3] // 2
    return _empty(x, H, W, x.dtype), _empty(x, H, W, torch.uint8)


def _empty_gradient(grad: Tensor, which: Tensor, height: int, width: int) -> Tensor:
    return _empty(which, height, width, grad.dtype)


@pool.register_fake
def _(x):
    return _empty_pooled(x)


@pool_backward.register_fake
def _(grad, which, height, width):
    return _empty_gradient(grad, which, height, width)


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    (x,) = inputs
    _, which = output
    ctx.mark_non_differentiable(which)
    ctx.save_for_backward(which)
    ctx.size = x.shape[2:]


def _backward(ctx: Any, grad: Tensor, _which: Tensor) -> Any:
    return pool_backward(grad, *ctx.saved_tensors, *ctx.size)


pool.register_autograd(_backward, setup_context=_save)
