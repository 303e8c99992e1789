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
