"""Mixing of codes, chunk by chunk."""

import torch
from torch import Tensor


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


def mix_used(codes: Tensor, mask: Tensor) -> Tensor:
    """`mix_chunks` where only the candidates in use were encoded, in one batch behind the reference images.

    Args:
        codes: (N + M, chunks, size): N reference codes, then the used candidates ordered by (chunk, sample); trailing
            rows are ignored.
        mask: (N, chunks) bool, True where the candidate's chunk is taken.

    Returns:
        (N, chunks, size).
    """
    n, chunks = mask.shape
    # Counting the used in the order they are listed in finds each one's place.
    place = n - 1 + mask.T.flatten().cumsum(0).unflatten(0, (chunks, n)).T
    code = torch.where(mask, place, torch.arange(n, device=mask.device)[:, None])
    return codes[code, torch.arange(chunks, device=mask.device)]
