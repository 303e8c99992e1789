"""Triton kernels of 2x2 max pooling."""

import triton
import triton.language as tl


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
def forward(x_ptr, y_ptr, which_ptr, x_strides, size, C, H, W, CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr):
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
def backward(
    grad_ptr, which_ptr, dx_ptr, grad_strides, which_strides, size, C, H, W,
    CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK values of dx; H and W are x's."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n, c, h, w = _place(i, C, H, W, CHANNELS_LAST)
    pooled = (i < size) & (h < H // 2 * 2) & (w < W // 2 * 2)
    which = tl.load(which_ptr + _at(n, c, h // 2, w // 2, which_strides), mask=pooled, other=4)
    chosen = which == h % 2 * 2 + w % 2
    grad = tl.load(grad_ptr + _at(n, c, h // 2, w // 2, grad_strides), mask=pooled & chosen, other=0)
    tl.store(dx_ptr + i, grad, mask=i < size)
