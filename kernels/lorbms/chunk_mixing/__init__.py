"""Mixing of codes, chunk by chunk. One torch operation selects: the fused form is the reference."""

import torch
from torch import Tensor

from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check, check_dtype, misfit
from lorbms_fast.kernels.lorbms.chunk_mixing import reference

if HAS_TRITON:
    from lorbms_fast.kernels.lorbms.chunk_mixing.triton import ops as triton_ops


@operation()
def mix_chunks(f_ref: Tensor, f_q: Tensor, mask: Tensor, impl: Impl | None = None) -> Tensor:
    """`f_mix[i] = m_i ? f_q[i] : f_ref[i]` (thesis, Algorithm 1).

    >>> f_ref, f_q = torch.zeros(1, 4, 2), torch.ones(1, 4, 2)
    >>> mix_chunks(f_ref, f_q, torch.tensor([[False, True, False, True]]))[0, :, 0]
    tensor([0., 1., 0., 1.])

    The way back is the same selection: `f_ref_hat = mix_chunks(f_mix_hat, f_ref, mask)`. Codes are (N, chunks, size),
    the mask (N, chunks) bool; chunk i of f_q is that of candidate i's code.
    Raises ValueError if a shape does not fit, or the mask is not bool.
    """
    if f_ref.dim() != 3:
        raise misfit("f_ref", f_ref, "(N, chunks, size)")
    check("f_q", f_q, *f_ref.shape)
    check("mask", mask, *f_ref.shape[:2])
    check_dtype("mask", mask, torch.bool)
    if select_impl(impl, f_ref) == "triton":
        return triton_ops.mix_chunks(f_ref, f_q, mask)
    return reference.mix_chunks(f_ref, f_q, mask)


@operation()
def mix_used(codes: Tensor, mask: Tensor, impl: Impl | None = None) -> Tensor:
    """`mix_chunks` where only the candidates in use were encoded, in one batch behind the reference images.

    >>> codes = torch.stack([torch.zeros(4, 2), torch.ones(4, 2)])  # one reference image, one candidate in use
    >>> mix_used(codes, torch.tensor([[False, True, False, False]]))[0, :, 0]
    tensor([0., 1., 0., 0.])

    Codes are (N + M, chunks, size): N reference codes, then the used candidates ordered by (chunk, sample); trailing
    rows are ignored. The result is (N, chunks, size).
    Raises ValueError if a shape does not fit, or the mask is not bool.
    """
    if codes.dim() != 3:
        raise misfit("codes", codes, "(N + M, chunks, size)")
    if mask.dim() != 2 or mask.shape[1] != codes.shape[1] or mask.shape[0] > codes.shape[0]:
        raise misfit("mask", mask, f"(N, {codes.shape[1]}), N {codes.shape[0]} at most")
    check_dtype("mask", mask, torch.bool)
    if select_impl(impl, codes) == "triton":
        return triton_ops.mix_used(codes, mask)
    return reference.mix_used(codes, mask)
