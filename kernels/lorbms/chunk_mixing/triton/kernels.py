"""Triton kernels of chunk mixing."""

import triton
import triton.language as tl


@triton.jit
def select(f_ref_ptr, f_q_ptr, mask_ptr, f_mix_ptr, size, BLOCK: tl.constexpr):
    """One chunk of one sample, of which only what is taken is read. Grid (N * chunks, blocks of a chunk)."""
    row = tl.program_id(0).to(tl.int64)
    replaced = tl.load(mask_ptr + row) != 0
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    dtype = f_mix_ptr.dtype.element_ty
    own = tl.load(f_ref_ptr + row * size + at, mask=at < tl.where(replaced, 0, size), other=0).to(dtype)
    other = tl.load(f_q_ptr + row * size + at, mask=at < tl.where(replaced, size, 0), other=0).to(dtype)
    tl.store(f_mix_ptr + row * size + at, tl.where(replaced, other, own), mask=at < size)


@triton.jit
def backward(grad_ptr, mask_ptr, df_ref_ptr, df_q_ptr, size, BLOCK: tl.constexpr):
    """Each chunk's gradient to where the chunk came from, zeros to the other. Grid as of `select`."""
    row = tl.program_id(0).to(tl.int64)
    replaced = tl.load(mask_ptr + row) != 0
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    grad = tl.load(grad_ptr + row * size + at, mask=at < size, other=0)
    tl.store(df_ref_ptr + row * size + at, tl.where(replaced, 0.0, grad), mask=at < size)
    tl.store(df_q_ptr + row * size + at, tl.where(replaced, grad, 0.0), mask=at < size)


@triton.jit
def _ranks(mask_ptr, N, chunks, BLOCK: tl.constexpr):
    """Of all mask values in the order (chunk, sample): where each lies, whether it is set, how many are up to it.

    Behind the last, -1 and not set.
    """
    i = tl.arange(0, BLOCK)
    at = tl.where(i < N * chunks, i % N * chunks + i // N, -1)
    used = (tl.load(mask_ptr + at, mask=at >= 0, other=0) != 0).to(tl.int32)
    return at, used, tl.cumsum(used, 0)


@triton.jit
def select_used(codes_ptr, mask_ptr, f_mix_ptr, N, chunks, size, BLOCK_MASK: tl.constexpr, BLOCK: tl.constexpr):
    """One chunk of one sample, its own or the next of those in use. Grid (N * chunks, blocks of a chunk)."""
    row = tl.program_id(0)
    at, used, rank = _ranks(mask_ptr, N, chunks, BLOCK_MASK)
    here = (at == row) & (used != 0)
    replaced = tl.sum(here.to(tl.int32)) > 0
    code = tl.where(replaced, N + tl.sum(tl.where(here, rank - 1, 0)), row // chunks)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    f = tl.load(codes_ptr + (code * chunks + row % chunks).to(tl.int64) * size + i, mask=i < size, other=0)
    tl.store(f_mix_ptr + row.to(tl.int64) * size + i, f, mask=i < size)


@triton.jit
def used_backward(grad_ptr, mask_ptr, dcodes_ptr, N, chunks, size, BLOCK_MASK: tl.constexpr, BLOCK: tl.constexpr):
    """One chunk of one code: its gradient is that of the chunk it went to, or 0. Grid (codes * chunks, blocks)."""
    code, chunk = tl.program_id(0) // chunks, tl.program_id(0) % chunks
    at, used, rank = _ranks(mask_ptr, N, chunks, BLOCK_MASK)
    of_reference = (at == tl.program_id(0)) & (used == 0)
    of_candidate = (N + rank - 1 == code) & (used != 0) & (at % chunks == chunk)
    here = tl.where(code < N, of_reference, of_candidate)
    taken = tl.sum(here.to(tl.int32)) > 0
    row = tl.sum(tl.where(here, at, 0)).to(tl.int64)
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    grad = tl.load(grad_ptr + row * size + i, mask=i < tl.where(taken, size, 0), other=0)
    tl.store(dcodes_ptr + tl.program_id(0).to(tl.int64) * size + i, grad, mask=i < size)
