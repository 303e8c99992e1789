"""Mixing of codes, chunk by chunk."""

import torch
from torch import Tensor

from lorbms_fast.mixing import mixing_mask


def mix_chunks(f_ref: Tensor, f_q: Tensor, mask: Tensor) -> Tensor:
    """`f_mix[i] = m_i ? f_q[i] : f_ref[i]` (thesis, Algorithm 1).

    Args:
        f_ref: codes of the reference images, (N, chunks, size).
        f_q: chunk i of the code of candidate i, (N, chunks, size).
        mask: (N, chunks) bool, True where the candidate's chunk is taken.

    Returns:
        (N, chunks, size).
    """
    return torch.where(mask.unsqueeze(-1), f_q, f_ref)


def mix_by_distance(f_ref: Tensor, f_q: Tensor, distances: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Algorithm 1 whole: decide by distance which chunks are replaced, and replace them.

    Args:
        f_ref: codes of the reference images, (N, chunks, size).
        f_q: chunk i of the code of candidate i, (N, chunks, size).
        distances: of each chunk's image from its candidate, (N, chunks), squared L2.
        tau: threshold on the same scale.

    Returns:
        f_mix (N, chunks, size); the mask (N, chunks) bool, True where a chunk was replaced.
    """
    mask = mixing_mask(distances, tau)
    return mix_chunks(f_ref, f_q, mask), mask


def mix_used(codes: Tensor, mask: Tensor) -> Tensor:
    """`mix_chunks` where only the candidates in use were encoded, in one batch behind the reference images.

    Args:
        codes: of the N reference images, then of the candidates in use, chunk by chunk, for each by sample, then of
            anything; (N + M, chunks, size).
        mask: (N, chunks) bool, True where the candidate's chunk is taken.

    Returns:
        (N, chunks, size).
    """
    n, chunks = mask.shape
    # Counting the used in the order they are listed in finds each one's place.
    place = n - 1 + mask.T.flatten().cumsum(0).unflatten(0, (chunks, n)).T
    code = torch.where(mask, place, torch.arange(n, device=mask.device)[:, None])
    return codes[code, torch.arange(chunks, device=mask.device)]
