"""Algorithm 1 and the selection of chunks in Triton."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorbms_fast.kernels.operation import operation

BLOCK = 1024


@triton.jit
def select_program(f_ref_ptr, f_q_ptr, mask_ptr, f_mix_ptr, size, BLOCK: tl.constexpr):
    """One chunk of one sample. Grid (N * chunks, blocks of a chunk)."""
    row = tl.program_id(0).to(tl.int64)
    replaced = tl.load(mask_ptr + row) != 0
    _select(f_ref_ptr + row * size, f_q_ptr + row * size, f_mix_ptr + row * size, replaced, size, BLOCK)


@triton.jit
def _select(f_ref_ptr, f_q_ptr, f_mix_ptr, replaced, size, BLOCK: tl.constexpr):
    """Read only what is taken."""
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    dtype = f_mix_ptr.dtype.element_ty
    own = tl.load(f_ref_ptr + at, mask=at < tl.where(replaced, 0, size), other=0).to(dtype)
    other = tl.load(f_q_ptr + at, mask=at < tl.where(replaced, size, 0), other=0).to(dtype)
    tl.store(f_mix_ptr + at, tl.where(replaced, other, own), mask=at < size)


@triton.jit
def decide_program(
    f_ref_ptr,
    f_q_ptr,
    distances_ptr,
    mask_ptr,
    f_mix_ptr,
    tau,
    chunks,
    size,
    BLOCK_CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """As `select_program`, after deciding from all distances of the sample whether this chunk is replaced."""
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(0) % chunks
    i = tl.arange(0, BLOCK_CHUNKS)
    d_at = distances_ptr + row - chunk + i
    d = tl.load(d_at, mask=i < chunks, other=float("-inf"))
    farthest = tl.argmax(d, 0)
    nearest = tl.argmin(tl.load(d_at, mask=i < chunks, other=float("inf")), 0)
    keep = ((i == farthest) | (d > tau)) & (i != nearest)
    nothing_kept = tl.sum((keep & (i < chunks)).to(tl.int32)) == 0
    keep = keep | (nothing_kept & (i == chunks - 1))
    replaced = tl.sum((keep & (i == chunk)).to(tl.int32)) == 0
    if tl.program_id(1) == 0:
        tl.store(mask_ptr + row, replaced)
    _select(f_ref_ptr + row * size, f_q_ptr + row * size, f_mix_ptr + row * size, replaced, size, BLOCK)


@triton.jit
def backward_program(grad_ptr, mask_ptr, df_ref_ptr, df_q_ptr, size, BLOCK: tl.constexpr):
    """Each chunk's gradient to where the chunk came from, zeros to the other. Grid as of `select_program`."""
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
def select_used_program(codes_ptr, mask_ptr, f_mix_ptr, N, chunks, size, BLOCK_MASK: tl.constexpr, BLOCK: tl.constexpr):
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
def used_backward_program(
    grad_ptr, mask_ptr, dcodes_ptr, N, chunks, size, BLOCK_MASK: tl.constexpr, BLOCK: tl.constexpr
):
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


@operation("mix_chunks")
def mix_chunks(f_ref: Tensor, f_q: Tensor, mask: Tensor) -> Tensor:
    """Documented at the package's function of this name."""
    f_mix = _empty_mix(f_ref, f_q)
    size = f_ref.shape[2]
    select_program[_grid(f_ref)](f_ref.contiguous(), f_q.contiguous(), mask.contiguous(), f_mix, size, _block(size))
    return f_mix


@operation("mix_by_distance")
def mix_by_distance(f_ref: Tensor, f_q: Tensor, distances: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Documented at the package's function of this name."""
    f_mix, mask = _empty_mix(f_ref, f_q), _empty_mask(f_ref)
    _, chunks, size = f_ref.shape
    decide_program[_grid(f_ref)](
        f_ref.contiguous(),
        f_q.contiguous(),
        distances.contiguous(),
        mask,
        f_mix,
        tau,
        chunks,
        size,
        triton.next_power_of_2(chunks),
        _block(size),
    )
    return f_mix, mask


@operation("mix_used")
def mix_used(codes: Tensor, mask: Tensor) -> Tensor:
    """Documented at the package's function of this name."""
    f_mix = _empty_used_mix(codes, mask)
    _launch_used(select_used_program, _grid(f_mix), codes.contiguous(), mask, f_mix)
    return f_mix


@operation("mix_used_backward")
def mix_used_backward(grad: Tensor, mask: Tensor, count: int) -> Tensor:
    """Gradient of all `count` codes."""
    dcodes = _empty_codes_gradient(grad, mask, count)
    _launch_used(used_backward_program, _grid(dcodes), grad.contiguous(), mask, dcodes)
    return dcodes


def _launch_used(program: Any, grid: tuple[int, int], read: Tensor, mask: Tensor, written: Tensor) -> None:
    (N, chunks), size = mask.shape, read.shape[2]
    block_mask = triton.next_power_of_2(mask.numel())
    program[grid](read, mask.contiguous(), written, N, chunks, size, block_mask, _block(size))


@operation("mix_chunks_backward")
def mix_chunks_backward(grad: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of f_ref and f_q."""
    grad, mask = grad.contiguous(), mask.contiguous()
    df_ref, df_q = torch.empty_like(grad), torch.empty_like(grad)
    size = grad.shape[2]
    backward_program[_grid(grad)](grad, mask, df_ref, df_q, size, _block(size))
    return df_ref, df_q


def _grid(f: Tensor) -> tuple[int, int]:
    N, chunks, size = f.shape
    return N * chunks, triton.cdiv(size, _block(size))


def _block(size: int) -> int:
    return min(BLOCK, triton.next_power_of_2(size))


def _empty_mix(f_ref: Tensor, f_q: Tensor) -> Tensor:
    return f_ref.new_empty(f_ref.shape, dtype=torch.promote_types(f_ref.dtype, f_q.dtype))


def _empty_used_mix(codes: Tensor, mask: Tensor) -> Tensor:
    return codes.new_empty((*mask.shape, codes.shape[2]))


def _empty_codes_gradient(grad: Tensor, mask: Tensor, count: int) -> Tensor:
    return grad.new_empty((count, *grad.shape[1:]))


def _empty_mask(f_ref: Tensor) -> Tensor:
    return f_ref.new_empty(f_ref.shape[:2], dtype=torch.bool)


@mix_chunks.register_fake
def _(f_ref, f_q, mask):
    return _empty_mix(f_ref, f_q)


@mix_by_distance.register_fake
def _(f_ref, f_q, distances, tau):
    return _empty_mix(f_ref, f_q), _empty_mask(f_ref)


@mix_used.register_fake
def _(codes, mask):
    return _empty_used_mix(codes, mask)


@mix_used_backward.register_fake
def _(grad, mask, count):
    return _empty_codes_gradient(grad, mask, count)


@mix_chunks_backward.register_fake
def _(grad, mask):
    return grad.new_empty(grad.shape), grad.new_empty(grad.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, Tensor]) -> None:
    f_ref, f_q, mask, *_ = inputs
    if isinstance(output, tuple):
        _, mask = output
        ctx.mark_non_differentiable(mask)
    ctx.save_for_backward(mask)
    ctx.dtypes = f_ref.dtype, f_q.dtype


def _backward(ctx: Any, grad: Tensor, *_: Tensor) -> Any:
    df_ref, df_q = mix_chunks_backward(grad, *ctx.saved_tensors)
    of_ref, of_q = ctx.dtypes
    return df_ref.to(of_ref), df_q.to(of_q), *[None] * (len(ctx.needs_input_grad) - 2)


mix_chunks.register_autograd(_backward, setup_context=_save)
mix_by_distance.register_autograd(_backward, setup_context=_save)


def _save_used(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    codes, mask = inputs
    ctx.save_for_backward(mask)
    ctx.count = len(codes)


def _used_backward(ctx: Any, grad: Tensor) -> Any:
    return mix_used_backward(grad, *ctx.saved_tensors, ctx.count), None


mix_used.register_autograd(_used_backward, setup_context=_save_used)
