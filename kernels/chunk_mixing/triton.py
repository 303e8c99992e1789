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


def _empty_mask(f_ref: Tensor) -> Tensor:
    return f_ref.new_empty(f_ref.shape[:2], dtype=torch.bool)


@mix_chunks.register_fake
def _(f_ref, f_q, mask):
    return _empty_mix(f_ref, f_q)


@mix_by_distance.register_fake
def _(f_ref, f_q, distances, tau):
    return _empty_mix(f_ref, f_q), _empty_mask(f_ref)


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
