"""The selection of chunks in Triton."""

from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.custom_op import triton_op
from lorbms_fast.kernels.lorbms.chunk_mixing.triton import kernels

BLOCK = 1024


@triton_op("mix_chunks")
def mix_chunks(f_ref: Tensor, f_q: Tensor, mask: Tensor) -> Tensor:
    """Documented at the package's function of this name."""
    f_mix = _empty_mix(f_ref, f_q, mask)
    size = f_ref.shape[2]
    kernels.select[_grid(f_ref)](f_ref.contiguous(), f_q.contiguous(), mask.contiguous(), f_mix, size, _block(size))
    return f_mix


@triton_op("mix_used")
def mix_used(codes: Tensor, mask: Tensor) -> Tensor:
    """Documented at the package's function of this name."""
    f_mix = _empty_used_mix(codes, mask)
    _launch_used(kernels.select_used, _grid(f_mix), codes.contiguous(), mask, f_mix)
    return f_mix


@triton_op("mix_used_backward")
def mix_used_backward(grad: Tensor, mask: Tensor, count: int) -> Tensor:
    """Gradient of all `count` codes."""
    dcodes = _empty_codes_gradient(grad, mask, count)
    _launch_used(kernels.used_backward, _grid(dcodes), grad.contiguous(), mask, dcodes)
    return dcodes


def _launch_used(program: Any, grid: tuple[int, int], read: Tensor, mask: Tensor, written: Tensor) -> None:
    (N, chunks), size = mask.shape, read.shape[2]
    block_mask = triton.next_power_of_2(mask.numel())
    program[grid](read, mask.contiguous(), written, N, chunks, size, block_mask, _block(size))


@triton_op("mix_chunks_backward")
def mix_chunks_backward(grad: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of f_ref and f_q."""
    grad, mask = grad.contiguous(), mask.contiguous()
    df_ref, df_q = torch.empty_like(grad), torch.empty_like(grad)
    size = grad.shape[2]
    kernels.backward[_grid(grad)](grad, mask, df_ref, df_q, size, _block(size))
    return df_ref, df_q


def _grid(f: Tensor) -> tuple[int, int]:
    N, chunks, size = f.shape
    return N * chunks, triton.cdiv(size, _block(size))


def _block(size: int) -> int:
    return min(BLOCK, triton.next_power_of_2(size))


@mix_chunks.register_fake
def _empty_mix(f_ref: Tensor, f_q: Tensor, mask: Tensor) -> Tensor:
    return f_ref.new_empty(f_ref.shape, dtype=torch.promote_types(f_ref.dtype, f_q.dtype))


@mix_used.register_fake
def _empty_used_mix(codes: Tensor, mask: Tensor) -> Tensor:
    return codes.new_empty((*mask.shape, codes.shape[2]))


@mix_used_backward.register_fake
def _empty_codes_gradient(grad: Tensor, mask: Tensor, count: int) -> Tensor:
    return grad.new_empty((count, *grad.shape[1:]))


@mix_chunks_backward.register_fake
def _(grad, mask):
    return grad.new_empty(grad.shape), grad.new_empty(grad.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    f_ref, f_q, mask = inputs
    ctx.save_for_backward(mask)
    ctx.dtypes = f_ref.dtype, f_q.dtype


def _backward(ctx: Any, grad: Tensor) -> Any:
    df_ref, df_q = mix_chunks_backward(grad, *ctx.saved_tensors)
    of_ref, of_q = ctx.dtypes
    return df_ref.to(of_ref), df_q.to(of_q), None


mix_chunks.register_autograd(_backward, setup_context=_save)


def _save_used(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    codes, mask = inputs
    ctx.save_for_backward(mask)
    ctx.count = len(codes)


def _used_backward(ctx: Any, grad: Tensor) -> Any:
    return mix_used_backward(grad, *ctx.saved_tensors, ctx.count), None


mix_used.register_autograd(_used_backward, setup_context=_save_used)
