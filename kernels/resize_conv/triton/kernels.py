"""Triton programs of the resize convolution: an implicit matrix product over nine folded taps.

Along one axis an output of even place reads input r with w0 + w1 + w2; one of odd place reads r with w0 + w1 and r + 1
with w2. Number these three folded taps k = 0, 1, 2: tap k makes outputs of parity `k > 0` from the input `k == 2`
further on. Two axes give nine taps T[k, l] and

    y[2 r + (k > 0), 2 s + (l > 0)] = sum over k, l of T[k, l] x[r + (k == 2), s + (l == 2)].

Positions (n, r, s) of the input are the rows of the matrix products, output maps their columns. Strides are of
(sample, channel, row, column).
"""

from typing import Any

import triton
import triton.language as tl

from lorbms_fast.kernels._common.autotune import autotune

TINY = {"BLOCK_M": 16, "BLOCK_O": 16, "BLOCK_C": 16}
KEY = ("positions", "C", "O", "PRECISION")
"""And the strides of x or dx: memory layouts differ in what suits them."""


def _tiles(*sizes: tuple[int, int, int, int, int]) -> list[triton.Config]:
    """Of (BLOCK_M, BLOCK_O, BLOCK_C, warps, stages)."""
    return [
        triton.Config({"BLOCK_M": m, "BLOCK_O": o, "BLOCK_C": c}, num_warps=warps, num_stages=stages)
        for m, o, c, warps, stages in sizes
    ]


def _by_positions(arguments: dict[str, Any]) -> int:
    """Few positions have few programs, which take many maps a step; with many, large tiles read less of each other."""
    return 1 + (arguments["positions"] > 1024) + (arguments["positions"] > 8192)


@triton.constexpr_function
def folds(k, a):
    """Tell whether folded tap k contains the weight's tap a."""
    return k == 0 or (k == 1) == (a < 2)


@triton.jit
def fold_taps(weights, taps, w_strides, Os, Cs, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Weights (O, C, 3, 3) -> their folded taps (9, C, O). Grid (blocks of the largest, weights)."""
    for number in tl.static_range(COUNT):
        if tl.program_id(1) == number:
            _fold_taps(
                weights[number], taps[number], w_strides[4 * number], w_strides[4 * number + 1],
                w_strides[4 * number + 2], w_strides[4 * number + 3], Os[number], Cs[number], BLOCK,
            )  # fmt: skip


@triton.jit
def _fold_taps(w_ptr, taps_ptr, of_o, of_c, of_row, of_column, O, C, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # c * O + o
    inside = i < O * C
    w_ptr += (i % O) * of_o + (i // O) * of_c
    for k in tl.static_range(3):
        for l in tl.static_range(3):
            tap = tl.zeros((BLOCK,), tl.float32)
            for a in tl.static_range(3):
                for b in tl.static_range(3):
                    if folds(k, a) and folds(l, b):
                        tap += tl.load(w_ptr + a * of_row + b * of_column, mask=inside, other=0).to(tl.float32)
            tl.store(taps_ptr + (k * 3 + l) * O * C + i, tap.to(taps_ptr.dtype.element_ty), mask=inside)


@triton.jit
def unfold_gradients(grads, dws, dw_strides, Os, Cs, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """Gradients of folded taps (9, C, O) -> gradients of their weights (O, C, 3, 3). Grid as of `fold_taps`."""
    for number in tl.static_range(COUNT):
        if tl.program_id(1) == number:
            _unfold_gradient(
                grads[number], dws[number], dw_strides[4 * number], dw_strides[4 * number + 1],
                dw_strides[4 * number + 2], dw_strides[4 * number + 3], Os[number], Cs[number], BLOCK,
            )  # fmt: skip


@triton.jit
def _unfold_gradient(grad_ptr, dw_ptr, of_o, of_c, of_row, of_column, O, C, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < O * C
    dw_ptr += (i % O) * of_o + (i // O) * of_c
    for a in tl.static_range(3):
        for b in tl.static_range(3):
            dw = tl.zeros((BLOCK,), tl.float32)
            for k in tl.static_range(3):
                for l in tl.static_range(3):
                    if folds(k, a) and folds(l, b):
                        dw += tl.load(grad_ptr + (k * 3 + l) * O * C + i, mask=inside, other=0).to(tl.float32)
            tl.store(dw_ptr + a * of_row + b * of_column, dw.to(dw_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _place(m, H, W):
    """Sample, row and column of position m of the input."""
    return m // (H * W), m // W % H, m % W


@autotune(_tiles((32, 32, 32, 4, 2), (32, 32, 16, 8, 2), (64, 32, 16, 4, 2)), TINY, (*KEY, "x_strides"), exact=1)
@triton.jit
def forward(
    x_ptr, taps_ptr, y_ptr, x_strides, y_strides, positions, C, O, H, W,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """All four outputs of BLOCK_M positions for BLOCK_O maps. Grid (position blocks, map blocks)."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    o = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
    n, r, s = _place(m, H, W)
    here = m < positions
    below = here & (r + 1 < H)
    right = here & (s + 1 < W)
    x_at = (n * x_strides[0] + r * x_strides[2] + s * x_strides[3])[:, None]
    y_00 = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    y_01 = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    y_10 = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    y_11 = tl.zeros((BLOCK_M, BLOCK_O), tl.float32)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        read = x_ptr + x_at + c[None, :] * x_strides[1]
        taps_at = taps_ptr + c[:, None] * O + o[None, :]
        in_c = (c < C)[None, :]
        in_taps = (c < C)[:, None] & (o < O)[None, :]
        x_00 = tl.load(read, mask=here[:, None] & in_c, other=0)
        y_00 = tl.dot(x_00, tl.load(taps_at, mask=in_taps, other=0), y_00, input_precision=PRECISION)
        y_01 = tl.dot(x_00, tl.load(taps_at + 1 * O * C, mask=in_taps, other=0), y_01, input_precision=PRECISION)
        y_10 = tl.dot(x_00, tl.load(taps_at + 3 * O * C, mask=in_taps, other=0), y_10, input_precision=PRECISION)
        y_11 = tl.dot(x_00, tl.load(taps_at + 4 * O * C, mask=in_taps, other=0), y_11, input_precision=PRECISION)
        x_01 = tl.load(read + x_strides[3], mask=right[:, None] & in_c, other=0)
        y_01 = tl.dot(x_01, tl.load(taps_at + 2 * O * C, mask=in_taps, other=0), y_01, input_precision=PRECISION)
        y_11 = tl.dot(x_01, tl.load(taps_at + 5 * O * C, mask=in_taps, other=0), y_11, input_precision=PRECISION)
        x_10 = tl.load(read + x_strides[2], mask=below[:, None] & in_c, other=0)
        y_10 = tl.dot(x_10, tl.load(taps_at + 6 * O * C, mask=in_taps, other=0), y_10, input_precision=PRECISION)
        y_11 = tl.dot(x_10, tl.load(taps_at + 7 * O * C, mask=in_taps, other=0), y_11, input_precision=PRECISION)
        x_11 = tl.load(read + x_strides[2] + x_strides[3], mask=(below & right)[:, None] & in_c, other=0)
        y_11 = tl.dot(x_11, tl.load(taps_at + 8 * O * C, mask=in_taps, other=0), y_11, input_precision=PRECISION)
    y_at = (n * y_strides[0] + 2 * r * y_strides[2] + 2 * s * y_strides[3])[:, None]
    y_at = y_ptr + y_at + o[None, :] * y_strides[1]
    stored = here[:, None] & (o < O)[None, :]
    dtype = y_ptr.dtype.element_ty
    tl.store(y_at, y_00.to(dtype), mask=stored)
    tl.store(y_at + y_strides[3], y_01.to(dtype), mask=stored)
    tl.store(y_at + y_strides[2], y_10.to(dtype), mask=stored)
    tl.store(y_at + y_strides[2] + y_strides[3], y_11.to(dtype), mask=stored)


@autotune(
    _tiles((32, 32, 32, 4, 2), (16, 128, 32, 4, 3), (64, 64, 64, 4, 3), (64, 128, 128, 8, 2)), TINY,
    (*KEY, "x_strides", "of_x", "parts"), likely=_by_positions,
)  # fmt: skip
@triton.jit
def gradients(
    grad_ptr, taps_ptr, x_ptr, dx_ptr, partial_ptr,
    grad_strides, x_strides, dx_strides, positions, C, O, H, W, positions_per_part, of_x, parts,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Both gradients, as either alone would leave multiprocessors idle.

    First come the programs of x, if `of_x`, then those of the taps, `parts` times.
    """
    data_programs = tl.cdiv(positions, BLOCK_M) * tl.cdiv(C, BLOCK_C) * of_x
    program = tl.program_id(0)
    if program < data_programs:
        _data_gradient(
            grad_ptr, taps_ptr, dx_ptr, grad_strides, dx_strides, positions, C, O, H, W, program,
            PRECISION, BLOCK_M, BLOCK_O, BLOCK_C,
        )  # fmt: skip
    else:
        _taps_gradient(
            grad_ptr, x_ptr, partial_ptr, grad_strides, x_strides, positions, C, O, H, W, positions_per_part,
            program - data_programs, PRECISION, BLOCK_M, BLOCK_O, BLOCK_C,
        )  # fmt: skip


@triton.jit
def _data_gradient(
    grad_ptr, taps_ptr, dx_ptr, grad_strides, dx_strides, positions, C, O, H, W, program,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient of BLOCK_M positions of BLOCK_C maps of x: program (position block, map block)."""
    m = program // tl.cdiv(C, BLOCK_C) * BLOCK_M + tl.arange(0, BLOCK_M)
    c = program % tl.cdiv(C, BLOCK_C) * BLOCK_C + tl.arange(0, BLOCK_C)
    n, r, s = _place(m, H, W)
    here = m < positions
    dx = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
    for tap in range(9):
        row = 2 * (r - tap // 6) + (tap >= 3)
        column = 2 * (s - tap % 3 // 2) + (tap % 3 > 0)
        place = (n * grad_strides[0] + row * grad_strides[2] + column * grad_strides[3])[:, None]
        read = (here & (row >= 0) & (column >= 0))[:, None]
        for start in range(0, O, BLOCK_O):
            o = start + tl.arange(0, BLOCK_O)
            grad_at = grad_ptr + place + o[None, :] * grad_strides[1]
            grad = tl.load(grad_at, mask=read & (o < O)[None, :], other=0)
            in_taps = (o < O)[:, None] & (c < C)[None, :]
            taps = tl.load(taps_ptr + (tap * C + c[None, :]) * O + o[:, None], mask=in_taps, other=0)
            dx = tl.dot(grad, taps, dx, input_precision=PRECISION)
    dx_at = (n * dx_strides[0] + r * dx_strides[2] + s * dx_strides[3])[:, None]
    stored = here[:, None] & (c < C)[None, :]
    tl.store(dx_ptr + dx_at + c[None, :] * dx_strides[1], dx.to(dx_ptr.dtype.element_ty), mask=stored)


@triton.jit
def _taps_gradient(
    grad_ptr, x_ptr, partial_ptr, grad_strides, x_strides, positions, C, O, H, W, positions_per_part, program,
    PRECISION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradient of one tap over one part of the positions, (parts, 9, C, O).

    Program (9 * parts, map block of x, map block of y).
    """
    blocks = tl.cdiv(C, BLOCK_C) * tl.cdiv(O, BLOCK_O)
    number, block = program // blocks, program % blocks
    c = block // tl.cdiv(O, BLOCK_O) * BLOCK_C + tl.arange(0, BLOCK_C)
    o = block % tl.cdiv(O, BLOCK_O) * BLOCK_O + tl.arange(0, BLOCK_O)
    tap = number % 9
    begin = number // 9 * positions_per_part
    down = tap // 6
    along = tap % 3 // 2
    dT = tl.zeros((BLOCK_C, BLOCK_O), tl.float32)
    end = tl.minimum(begin + positions_per_part, positions)
    for start in range(begin, end, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        n, r, s = _place(m, H, W)
        here = (m < end) & (r + down < H) & (s + along < W)
        x_at = n * x_strides[0] + (r + down) * x_strides[2] + (s + along) * x_strides[3]
        x_at = x_ptr + x_at[None, :] + c[:, None] * x_strides[1]
        x = tl.load(x_at, mask=here[None, :] & (c < C)[:, None], other=0)
        grad_at = n * grad_strides[0] + (2 * r + (tap >= 3)) * grad_strides[2]
        grad_at += (2 * s + (tap % 3 > 0)) * grad_strides[3]
        grad_at = grad_ptr + grad_at[:, None] + o[None, :] * grad_strides[1]
        grad = tl.load(grad_at, mask=here[:, None] & (o < O)[None, :], other=0)
        dT = tl.dot(x, grad, dT, input_precision=PRECISION)
    stored = (c < C)[:, None] & (o < O)[None, :]
    dT_at = partial_ptr + (number * C + c[:, None]) * O + o[None, :]
    tl.store(dT_at, dT.to(partial_ptr.dtype.element_ty), mask=stored)
