"""Triton kernels of coordinate channels."""

import triton
import triton.language as tl


@triton.jit
def _along(place, size):
    """Place 0 .. size - 1 on a line from -1 to 1; -1 where there is but one."""
    return -1 + 2 * place.to(tl.float32) / tl.maximum(size - 1, 1)


@triton.jit
def append(x_ptr, y_ptr, x_strides, values, C, H, W, BLOCK: tl.constexpr):
    """A block of y's values, (image, row, column, channel) with two channels more than x."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c, column, row = i % (C + 2), i // (C + 2) % W, i // (C + 2) // W % H
    image = (i // (C + 2) // W // H).to(tl.int64)
    at = image * x_strides[0] + c * x_strides[1] + row * x_strides[2] + column * x_strides[3]
    x = tl.load(x_ptr + at, mask=(i < values) & (c < C), other=0).to(tl.float32)
    y = tl.where(c == C, _along(column, W), tl.where(c == C + 1, _along(row, H), x))
    tl.store(y_ptr + i, y.to(y_ptr.dtype.element_ty), mask=i < values)
