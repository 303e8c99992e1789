"""Mixing of codes, chunk by chunk. One torch operation selects: the fused form is the definition."""

from torch import Tensor

from lorbms_fast.kernels.chunk_mixing import definition
from lorbms_fast.kernels.dispatch import TRITON, Impl, resolve

if TRITON:
    from lorbms_fast.kernels.chunk_mixing import triton


def mix_chunks(f_ref: Tensor, f_q: Tensor, mask: Tensor, impl: Impl | None = None) -> Tensor:
    """`f_mix[i] = m_i ? f_q[i] : f_ref[i]` (thesis, Algorithm 1).

    The way back is the same selection: `f_ref_hat = mix_chunks(f_mix_hat, f_ref, mask)`.

    Args:
        f_ref: codes of the reference images, (N, chunks, size).
        f_q: chunk i of the code of candidate i, (N, chunks, size).
        mask: (N, chunks) bool, True where the candidate's chunk is taken.
        impl: form to run; None takes the one in force.

    Returns:
        (N, chunks, size).
    """
    if resolve(impl, f_ref) == "triton":
        return triton.mix_chunks(f_ref, f_q, mask)
    return definition.mix_chunks(f_ref, f_q, mask)


def mix_by_distance(
    f_ref: Tensor, f_q: Tensor, distances: Tensor, tau: float, impl: Impl | None = None
) -> tuple[Tensor, Tensor]:
    """Algorithm 1 whole, in one launch on CUDA: decide by distance which chunks are replaced, and replace them.

    Args:
        f_ref: codes of the reference images, (N, chunks, size).
        f_q: chunk i of the code of candidate i, (N, chunks, size).
        distances: of each chunk's image from its candidate, (N, chunks), squared L2; no NaN.
        tau: threshold on the same scale.
        impl: form to run; None takes the one in force.

    Returns:
        f_mix (N, chunks, size); the mask (N, chunks) bool, True where a chunk was replaced.
    """
    if resolve(impl, f_ref) == "triton":
        return triton.mix_by_distance(f_ref, f_q, distances, tau)
    return definition.mix_by_distance(f_ref, f_q, distances, tau)


def mix_used(codes: Tensor, mask: Tensor, impl: Impl | None = None) -> Tensor:
    """`mix_chunks` where only the candidates in use were encoded, in one batch behind the reference images.

    Args:
        codes: of the N reference images, then of the candidates in use, chunk by chunk, for each by sample, then of
            anything; (N + M, chunks, size).
        mask: (N, chunks) bool, True where the candidate's chunk is taken.
        impl: form to run; None takes the one in force.

    Returns:
        (N, chunks, size).
    """
    if resolve(impl, codes) == "triton":
        return triton.mix_used(codes, mask)
    return definition.mix_used(codes, mask)
