"""Sums that several programs of a launch share, each with a part of its own: no order of arrival decides the result."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 256


def empty_partials(total: Tensor, parts: int) -> Tensor:
    """Allocate the parts that programs write, (parts, *total.shape) float32."""
    return total.new_empty((parts, *total.shape), dtype=torch.float32)


def reduce_partials(partial: Tensor, total: Tensor) -> None:
    """Add the parts up, in their order, in one launch."""
    add_kernel[(triton.cdiv(total.numel(), BLOCK),)](partial, total, len(partial), total.numel(), BLOCK)


@triton.jit
def add_kernel(partial_ptr, total_ptr, parts, size, BLOCK: tl.constexpr):
    """(parts, size) float32 -> (size,)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(parts):
        total += tl.load(partial_ptr + i, mask=i < size, other=0)
        partial_ptr += size
    tl.store(total_ptr + i, total.to(total_ptr.dtype.element_ty), mask=i < size)
