"""Triton kernels of the pooled 1x1 convolution.

A window of four positions is four rows of a matrix product, one after the other; `which` says which of them was the
greatest, 0 to 3 in row-major order, for each pooled position and map.
"""

import triton
import triton.language as tl


@triton.jit
def forward(
    x, x_strides, weight, bias, y, which, windows, C, O, H_out, W_out,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Program (block of BLOCK_M / 4 windows, block of maps). y and which are (image, row, column, map)."""
    row = tl.arange(0, BLOCK_M)
    q = tl.program_id(0) * (BLOCK_M // 4) + row // 4
    out = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    image = (q // (H_out * W_out)).to(tl.int64)
    h = (q // W_out) % H_out * 2 + (row % 4) // 2
    v = q % W_out * 2 + row % 2
    at = image * x_strides[0] + h * x_strides[2] + v * x_strides[3]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, C, BLOCK_K):
        c = first + tl.arange(0, BLOCK_K)
        inside = (q < windows)[:, None] & (c < C)[None, :]
        read = tl.load(x + at[:, None] + c[None, :] * x_strides[1], mask=inside, other=0.0).to(y.dtype.element_ty)
        kernel = tl.load(weight + out[None, :] * C + c[:, None], mask=(c < C)[:, None] & (out < O)[None, :], other=0.0)
        sums = tl.dot(read, kernel.to(y.dtype.element_ty), sums, input_precision=PRECISION)
    best, place = tl.max(tl.reshape(sums, (BLOCK_M // 4, 4, BLOCK_N)), 1, return_indices=True)
    best += tl.load(bias + out, mask=out < O, other=0.0).to(tl.float32)[None, :]
    q = (tl.program_id(0) * (BLOCK_M // 4) + tl.arange(0, BLOCK_M // 4)).to(tl.int64)
    kept = (q < windows)[:, None] & (out < O)[None, :]
    tl.store(y + q[:, None] * O + out[None, :], best.to(y.dtype.element_ty), mask=kept)
    tl.store(which + q[:, None] * O + out[None, :], place.to(tl.uint8), mask=kept)


@triton.jit
def spread(
    grad, grad_strides, which, spread_grad, values, H, W, O, BLOCK: tl.constexpr
):  # fmt: skip
    """Put the gradient of a window's maximum where the maximum was, and 0 elsewhere: (image, row, column, map)."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    o, v, h, image = i % O, i // O % W, i // O // W % H, i // O // W // H
    pooled_h, pooled_v = h // 2, v // 2
    inside = (i < values) & (pooled_h < H // 2) & (pooled_v < W // 2)
    place = tl.load(which + ((image * (H // 2) + pooled_h) * (W // 2) + pooled_v) * O + o, mask=inside, other=4)
    here = inside & (place == h % 2 * 2 + v % 2)
    at = image * grad_strides[0] + o * grad_strides[1] + pooled_h * grad_strides[2] + pooled_v * grad_strides[3]
    tl.store(spread_grad + i, tl.load(grad + at, mask=here, other=0.0), mask=i < values)
