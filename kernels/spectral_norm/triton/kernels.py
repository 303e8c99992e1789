"""Triton programs of the spectral norm of a list of weights that lie packed, one after the other.

Weight i is a matrix (O, K), cut into tiles of BLOCK_K columns; every program has one tile of one weight. Row i of the
table holds O, K, where W, u, v and its partial sums begin in their packings, its first tile, and the first behind it.

With `t = W^T u` (v before it is normalized), `W t` is a sum over tiles of columns, so a program that has its part of t
can go on to its part of `W t` at once: one launch for the power step. What divides then adds the parts up.
"""

import triton
import triton.language as tl

TINY_NORM = tl.constexpr(1e-12)


@triton.jit
def _weight(table_ptr, of_tile_ptr):
    """Facts of the weight that this program's tile belongs to: its number, then its row of the table."""
    i = tl.load(of_tile_ptr + tl.program_id(0))
    row = table_ptr + i * 8
    return (
        i, tl.load(row).to(tl.int32), tl.load(row + 1).to(tl.int32), tl.load(row + 2), tl.load(row + 3),
        tl.load(row + 4), tl.load(row + 5), tl.load(row + 6).to(tl.int32), tl.load(row + 7).to(tl.int32),
    )  # fmt: skip


@triton.jit
def power_step(
    W_ptr, u_ptr, table_ptr, of_tile_ptr, t_ptr, norms_ptr, sums_ptr,
    BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile's part of t, of |t|^2 and of W t."""
    _, O, K, W_at, u_at, v_at, sums_at, first, _ = _weight(table_ptr, of_tile_ptr)
    block = tl.program_id(0) - first
    k = block * BLOCK_K + tl.arange(0, BLOCK_K)
    t = tl.zeros((BLOCK_K,), tl.float32)
    for start in range(0, O, BLOCK_O):
        o = start + tl.arange(0, BLOCK_O)
        W = tl.load(W_ptr + W_at + o[:, None] * K + k[None, :], mask=(o < O)[:, None] & (k < K)[None, :], other=0)
        u = tl.load(u_ptr + u_at + o, mask=o < O, other=0)
        t += tl.sum(W.to(tl.float32) * u.to(tl.float32)[:, None], 0)
    tl.store(t_ptr + v_at + k, t, mask=k < K)
    tl.store(norms_ptr + tl.program_id(0), tl.sum(t * t))
    for start in range(0, O, BLOCK_O):
        o = start + tl.arange(0, BLOCK_O)
        W = tl.load(W_ptr + W_at + o[:, None] * K + k[None, :], mask=(o < O)[:, None] & (k < K)[None, :], other=0)
        tl.store(sums_ptr + sums_at + block * O + o, tl.sum(W.to(tl.float32) * t[None, :], 1), mask=o < O)


@triton.jit
def _sum_of_tiles(ptr, first, last, BLOCK_TILES: tl.constexpr):
    """Sum of one number a tile over a weight's tiles."""
    tile = first + tl.arange(0, BLOCK_TILES)
    return tl.sum(tl.load(ptr + tile, mask=tile < last, other=0))


@triton.jit
def _W_t(sums_ptr, o, O, blocks):
    total = tl.zeros(o.shape, tl.float32)
    for block in range(blocks):
        total += tl.load(sums_ptr + block * O + o, mask=o < O, other=0)
    return total


@triton.jit
def _norms(norms_ptr, sums_ptr, O, first, last, BLOCK_O: tl.constexpr, BLOCK_TILES: tl.constexpr):
    """`|t| + 1e-12` and |W v|."""
    norm_t = tl.sqrt(_sum_of_tiles(norms_ptr, first, last, BLOCK_TILES)) + TINY_NORM
    squares = tl.zeros((BLOCK_O,), tl.float32)
    for start in range(0, O, BLOCK_O):
        W_t = _W_t(sums_ptr, start + tl.arange(0, BLOCK_O), O, last - first)
        squares += W_t * W_t
    return norm_t, tl.sqrt(tl.sum(squares)) / norm_t


@triton.jit
def _store_u(u_next_ptr, sums_ptr, O, blocks, scale, BLOCK_O: tl.constexpr):
    for start in range(0, O, BLOCK_O):
        o = start + tl.arange(0, BLOCK_O)
        u_next = _W_t(sums_ptr, o, O, blocks) * scale
        tl.store(u_next_ptr + o, u_next.to(u_next_ptr.dtype.element_ty), mask=o < O)


@triton.jit
def divide(
    W_ptr, table_ptr, of_tile_ptr, norms_ptr, sums_ptr, t_ptr, W_bar_ptr, u_next_ptr, v_ptr, sigma_ptr,
    BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_TILES: tl.constexpr,
):  # fmt: skip
    """One tile of `W / sigma` and of v; a weight's first tile stores u' and sigma too."""
    i, O, K, W_at, u_at, v_at, sums_at, first, last = _weight(table_ptr, of_tile_ptr)
    sums_ptr += sums_at
    norm_t, norm_Wv = _norms(norms_ptr, sums_ptr, O, first, last, BLOCK_O, BLOCK_TILES)
    sigma = norm_Wv * norm_Wv / (norm_Wv + TINY_NORM)
    if tl.program_id(0) == first:
        tl.store(sigma_ptr + i, sigma)
        _store_u(u_next_ptr + u_at, sums_ptr, O, last - first, 1 / (norm_t * (norm_Wv + TINY_NORM)), BLOCK_O)
    k = (tl.program_id(0) - first) * BLOCK_K + tl.arange(0, BLOCK_K)
    tl.store(v_ptr + v_at + k, tl.load(t_ptr + v_at + k, mask=k < K, other=0) / norm_t, mask=k < K)
    for start in range(0, O, BLOCK_O):
        o = start + tl.arange(0, BLOCK_O)
        inside = (o < O)[:, None] & (k < K)[None, :]
        at = W_at + o[:, None] * K + k[None, :]
        W_bar = tl.load(W_ptr + at, mask=inside, other=0).to(tl.float32) / sigma
        tl.store(W_bar_ptr + at, W_bar.to(W_bar_ptr.dtype.element_ty), mask=inside)


@triton.jit
def next_u(
    table_ptr, of_tile_ptr, norms_ptr, sums_ptr, u_next_ptr,
    BLOCK_O: tl.constexpr, BLOCK_TILES: tl.constexpr,
):  # fmt: skip
    """u' of every weight; only a weight's first tile has work."""
    _, O, _, _, u_at, _, sums_at, first, last = _weight(table_ptr, of_tile_ptr)
    if tl.program_id(0) == first:
        norm_t, norm_Wv = _norms(norms_ptr, sums_ptr + sums_at, O, first, last, BLOCK_O, BLOCK_TILES)
        scale = 1 / (norm_t * (norm_Wv + TINY_NORM))
        _store_u(u_next_ptr + u_at, sums_ptr + sums_at, O, last - first, scale, BLOCK_O)


@triton.jit
def inner_products(
    grad_ptr, W_bar_ptr, table_ptr, of_tile_ptr, inner_ptr, BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr
):
    """One tile's part of <g, W_bar>."""
    _, O, K, W_at, _, _, _, first, _ = _weight(table_ptr, of_tile_ptr)
    k = (tl.program_id(0) - first) * BLOCK_K + tl.arange(0, BLOCK_K)
    inner = tl.zeros((BLOCK_O, BLOCK_K), tl.float32)
    for start in range(0, O, BLOCK_O):
        o = start + tl.arange(0, BLOCK_O)
        inside = (o < O)[:, None] & (k < K)[None, :]
        at = W_at + o[:, None] * K + k[None, :]
        grad = tl.load(grad_ptr + at, mask=inside, other=0).to(tl.float32)
        inner += grad * tl.load(W_bar_ptr + at, mask=inside, other=0).to(tl.float32)
    tl.store(inner_ptr + tl.program_id(0), tl.sum(inner))


@triton.jit
def backward(
    grad_ptr, table_ptr, of_tile_ptr, inner_ptr, u_next_ptr, v_ptr, sigma_ptr, dW_ptr,
    BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_TILES: tl.constexpr,
):  # fmt: skip
    """One tile of `dL/dW = (g - <g, W_bar> u' v^T) / sigma`."""
    i, O, K, W_at, u_at, v_at, _, first, last = _weight(table_ptr, of_tile_ptr)
    inner = _sum_of_tiles(inner_ptr, first, last, BLOCK_TILES)
    sigma = tl.load(sigma_ptr + i)
    k = (tl.program_id(0) - first) * BLOCK_K + tl.arange(0, BLOCK_K)
    inner_v = inner * tl.load(v_ptr + v_at + k, mask=k < K, other=0)
    for start in range(0, O, BLOCK_O):
        o = start + tl.arange(0, BLOCK_O)
        inside = (o < O)[:, None] & (k < K)[None, :]
        at = W_at + o[:, None] * K + k[None, :]
        u = tl.load(u_next_ptr + u_at + o, mask=o < O, other=0).to(tl.float32)
        dW = (tl.load(grad_ptr + at, mask=inside, other=0).to(tl.float32) - u[:, None] * inner_v[None, :]) / sigma
        tl.store(dW_ptr + at, dW.to(dW_ptr.dtype.element_ty), mask=inside)
