"""Triton kernels of the output convolution."""

import triton
import triton.language as tl


@triton.jit
def _at(m, strides, H, W):
    """Where position m = (sample, row, column) begins."""
    return (m // (H * W)).to(tl.int64) * strides[0] + m // W % H * strides[2] + m % W * strides[3]


@triton.jit
def _add_product(
    sums, x, strides, weight, C, STACK, m, o, positions, O, H, W, dtype: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Add what one part of the stack contributes; `weight` begins at its first channel."""
    at = _at(m, strides, H, W)
    for first in range(0, C, BLOCK_K):
        c = first + tl.arange(0, BLOCK_K)
        inside = (m < positions)[:, None] & (c < C)[None, :]
        read = tl.load(x + at[:, None] + c[None, :] * strides[1], mask=inside, other=0.0)
        kernel = tl.load(weight + o[None, :] * STACK + c[:, None], mask=(c < C)[:, None] & (o < O)[None, :], other=0.0)
        sums = tl.dot(read.to(dtype), kernel.to(dtype), sums, input_precision=PRECISION)
    return sums


@triton.jit
def _tanh(x):
    """Without an exponential that overflows."""
    e = tl.exp(-2 * tl.abs(x))
    return tl.where(x < 0, -1.0, 1.0) * (1 - e) / (1 + e)


@triton.jit
def forward(
    x, x_strides, new_maps, maps_strides, weight, bias, y, positions, C, D, O, H, W,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Program (block of positions, block of maps). y is (sample, row, column, map)."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    dtype: tl.constexpr = y.dtype.element_ty
    sums = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    sums = _add_product(sums, x, x_strides, weight, C, C + D, m, o, positions, O, H, W, dtype, PRECISION, BLOCK_K)
    sums = _add_product(
        sums, new_maps, maps_strides, weight + C, D, C + D, m, o, positions, O, H, W, dtype, PRECISION, BLOCK_K
    )
    sums += tl.load(bias + o, mask=o < O, other=0.0).to(tl.float32)[None, :]
    kept = (m < positions)[:, None] & (o < O)[None, :]
    tl.store(y + m.to(tl.int64)[:, None] * O + o[None, :], _tanh(sums).to(dtype), mask=kept)


@triton.jit
def gradients(
    grad, grad_strides, y, x, x_strides, new_maps, maps_strides, weight, dx, dx_strides, dmaps, dmaps_strides, partial,
    tiles_per_part, positions, C, D, O, H, W,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradients of x and new_maps, or None; and of parameters in parts, each (O * (C + D) + O): weight's, then bias's.

    Program (part of the positions, block of channels: x's, then new_maps').
    """
    block = tl.program_id(1)
    of_x = tl.cdiv(C, BLOCK_C)
    partial += tl.program_id(0) * (O * (C + D) + O)
    if block < of_x:
        _part_gradients(
            grad, grad_strides, y, x, x_strides, weight, dx, dx_strides, partial, block, tiles_per_part, positions,
            C, C + D, O, H, W, PRECISION, BLOCK_M, BLOCK_O, BLOCK_C,
        )  # fmt: skip
    else:
        _part_gradients(
            grad, grad_strides, y, new_maps, maps_strides, weight + C, dmaps, dmaps_strides, partial + C, block - of_x,
            tiles_per_part, positions, D, C + D, O, H, W, PRECISION, BLOCK_M, BLOCK_O, BLOCK_C,
        )  # fmt: skip
    if block == 0:
        _bias_gradient(
            grad, grad_strides, y, partial + O * (C + D), tiles_per_part, positions, O, H, W, BLOCK_M, BLOCK_O
        )


@triton.jit
def _before_tanh(grad, grad_strides, y, m, o, positions, O, H, W):
    """Gradient of what tanh was given: `(1 - y^2) grad`."""
    inside = (m < positions)[:, None] & (o < O)[None, :]
    y = tl.load(y + m.to(tl.int64)[:, None] * O + o[None, :], mask=inside, other=0.0).to(tl.float32)
    at = _at(m, grad_strides, H, W)
    return (1 - y * y) * tl.load(grad + at[:, None] + o[None, :] * grad_strides[1], mask=inside, other=0.0)


@triton.jit
def _part_gradients(
    grad, grad_strides, y, x, x_strides, weight, dx, dx_strides, partial, block, tiles_per_part, positions, C, STACK, O,
    H, W, PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Of a block of channels of one part of the stack; `weight` and `partial` begin at its first channel."""
    o = tl.arange(0, BLOCK_O)
    c = block * BLOCK_C + tl.arange(0, BLOCK_C)
    of_weight = (o < O)[:, None] & (c < C)[None, :]
    at_weight = o[:, None] * STACK + c[None, :]
    dtype: tl.constexpr = y.dtype.element_ty
    kernel = tl.load(weight + at_weight, mask=of_weight, other=0.0).to(dtype)
    sums = tl.zeros((BLOCK_O, BLOCK_C), tl.float32)
    for tile in range(tiles_per_part):
        m = (tl.program_id(0) * tiles_per_part + tile) * BLOCK_M + tl.arange(0, BLOCK_M)
        g = _before_tanh(grad, grad_strides, y, m, o, positions, O, H, W).to(dtype)
        inside = (m < positions)[:, None] & (c < C)[None, :]
        if dx is not None:
            of_x = tl.dot(g, kernel, input_precision=PRECISION)
            at = _at(m, dx_strides, H, W)
            tl.store(dx + at[:, None] + c[None, :] * dx_strides[1], of_x.to(dx.dtype.element_ty), mask=inside)
        read = tl.load(x + _at(m, x_strides, H, W)[:, None] + c[None, :] * x_strides[1], mask=inside, other=0.0)
        sums = tl.dot(tl.trans(g), read.to(dtype), sums, input_precision=PRECISION)
    tl.store(partial + at_weight, sums.to(partial.dtype.element_ty), mask=of_weight)


@triton.jit
def _bias_gradient(
    grad, grad_strides, y, partial, tiles_per_part, positions, O, H, W, BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr
):
    o = tl.arange(0, BLOCK_O)
    sums = tl.zeros((BLOCK_O,), tl.float32)
    for tile in range(tiles_per_part):
        m = (tl.program_id(0) * tiles_per_part + tile) * BLOCK_M + tl.arange(0, BLOCK_M)
        sums += tl.sum(_before_tanh(grad, grad_strides, y, m, o, positions, O, H, W), 0)
    tl.store(partial + o, sums.to(partial.dtype.element_ty), mask=o < O)
