"""Triton kernels of the pooled 1x1 convolution.

A window of four positions is four rows of a matrix product, one after the other; `which` says which of them was the
greatest, 0 to 3 in row-major order, for each pooled position and map.
"""

import triton
import triton.language as tl


@triton.jit
def _ordered(x):
    """Whole numbers in the order of float32 ones, NaN being the greatest: which a GPU's own maximum may drop."""
    bits = (x + 0.0).to(tl.int32, bitcast=True)  # -0 becomes 0
    return tl.where(x != x, 0x7FFFFFFF, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits))


@triton.jit
def _of_ordered(number):
    return tl.where(number < 0, number ^ 0x7FFFFFFF, number).to(tl.float32, bitcast=True)


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
    best, place = tl.max(tl.reshape(_ordered(sums), (BLOCK_M // 4, 4, BLOCK_N)), 1, return_indices=True)
    best = _of_ordered(best)
    best += tl.load(bias + out, mask=out < O, other=0.0).to(tl.float32)[None, :]
    q = (tl.program_id(0) * (BLOCK_M // 4) + tl.arange(0, BLOCK_M // 4)).to(tl.int64)
    kept = (q < windows)[:, None] & (out < O)[None, :]
    tl.store(y + q[:, None] * O + out[None, :], best.to(y.dtype.element_ty), mask=kept)
    tl.store(which + q[:, None] * O + out[None, :], place.to(tl.uint8), mask=kept)


@triton.jit
def _windows(row, H, W):
    """Of rows in windows: sample, place in the pooled map, which of the window's four, place in the map."""
    q = row // 4
    image, pooled_h, pooled_v = q // (H * W), q // W % H, q % W
    return image.to(tl.int64), pooled_h, pooled_v, row % 4, 2 * pooled_h + row % 4 // 2, 2 * pooled_v + row % 2


@triton.jit
def gradients(
    grad, grad_strides, which, x, x_strides, weight, dx, dx_strides, partial, rows_per_part, N, C, O, H, W, of_x,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """All gradients, as either alone would leave multiprocessors idle: `of_x` programs of x, then those of parameters.

    The gradient of a window's maximum goes to where the maximum was, as `which` tells. Parameters' come in parts, each
    (O * C + O): the weight's, then the bias's.
    """
    program = tl.program_id(0)
    if program < of_x:
        _data_gradient(
            grad, grad_strides, which, weight, dx, dx_strides, N, C, O, H, W, program,
            PRECISION, BLOCK_M, BLOCK_C, BLOCK_K,
        )  # fmt: skip
    else:
        _parameter_gradients(
            grad, grad_strides, which, x, x_strides, partial, rows_per_part, N, C, O, H, W, program - of_x,
            PRECISION, BLOCK_C, BLOCK_O, BLOCK_Q,
        )  # fmt: skip


@triton.jit
def _data_gradient(
    grad, grad_strides, which, weight, dx, dx_strides, N, C, O, H, W, program,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Program (block of rows, block of channels); windows that the pool left out at odd edges are rows too."""
    row = program // tl.cdiv(C, BLOCK_C) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = program % tl.cdiv(C, BLOCK_C) * BLOCK_C + tl.arange(0, BLOCK_C)
    image, pooled_h, pooled_v, place, h, v = _windows(row, (H + 1) // 2, (W + 1) // 2)
    here = (image < N) & (h < H) & (v < W)
    pooled = (image < N) & (pooled_h < H // 2) & (pooled_v < W // 2)
    at = image * grad_strides[0] + pooled_h * grad_strides[2] + pooled_v * grad_strides[3]
    which_at = ((image * (H // 2) + pooled_h) * (W // 2) + pooled_v) * O
    sums = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for first in range(0, O, BLOCK_K):
        o = first + tl.arange(0, BLOCK_K)
        inside = pooled[:, None] & (o < O)[None, :]
        greatest = tl.load(which + which_at[:, None] + o[None, :], mask=inside, other=4) == place[:, None]
        g = tl.load(grad + at[:, None] + o[None, :] * grad_strides[1], mask=inside & greatest, other=0.0)
        kernel = tl.load(weight + o[:, None] * C + c[None, :], mask=(o < O)[:, None] & (c < C)[None, :], other=0.0)
        sums = tl.dot(g, kernel.to(g.dtype), sums, input_precision=PRECISION)
    at = image * dx_strides[0] + h * dx_strides[2] + v * dx_strides[3]
    kept = here[:, None] & (c < C)[None, :]
    tl.store(dx + at[:, None] + c[None, :] * dx_strides[1], sums.to(dx.dtype.element_ty), mask=kept)


@triton.jit
def _parameter_gradients(
    grad, grad_strides, which, x, x_strides, partial, rows_per_part, N, C, O, H, W, program,
    PRECISION: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Program (part of the rows, block of maps, block of channels)."""
    of_part = tl.cdiv(O, BLOCK_O) * tl.cdiv(C, BLOCK_C)
    part, block = program // of_part, program % of_part
    o = block // tl.cdiv(C, BLOCK_C) * BLOCK_O + tl.arange(0, BLOCK_O)
    c = block % tl.cdiv(C, BLOCK_C) * BLOCK_C + tl.arange(0, BLOCK_C)
    rows = 4 * N * (H // 2) * (W // 2)
    begin = part * rows_per_part
    of_weight = tl.zeros((BLOCK_O, BLOCK_C), tl.float32)
    of_bias = tl.zeros((BLOCK_O,), tl.float32)
    for first in range(begin, tl.minimum(begin + rows_per_part, rows), BLOCK_Q):
        row = first + tl.arange(0, BLOCK_Q)
        image, pooled_h, pooled_v, place, h, v = _windows(row, H // 2, W // 2)
        at = image * grad_strides[0] + pooled_h * grad_strides[2] + pooled_v * grad_strides[3]
        inside = (o < O)[:, None] & (row < rows)[None, :]
        which_at = which + (row // 4).to(tl.int64)[None, :] * O + o[:, None]
        greatest = tl.load(which_at, mask=inside, other=4) == place[None, :]
        g = tl.load(grad + at[None, :] + o[:, None] * grad_strides[1], mask=inside & greatest, other=0.0)
        at = image * x_strides[0] + h * x_strides[2] + v * x_strides[3]
        read = tl.load(
            x + at[:, None] + c[None, :] * x_strides[1], mask=(row < rows)[:, None] & (c < C)[None, :], other=0.0
        )
        of_weight = tl.dot(g, read.to(g.dtype), of_weight, input_precision=PRECISION)
        of_bias += tl.sum(g.to(tl.float32), 1)
    partial += part * (O * C + O)
    kept = (o < O)[:, None] & (c < C)[None, :]
    tl.store(partial + o[:, None] * C + c[None, :], of_weight.to(partial.dtype.element_ty), mask=kept)
    if block % tl.cdiv(C, BLOCK_C) == 0:
        tl.store(partial + O * C + o, of_bias.to(partial.dtype.element_ty), mask=o < O)
