"""Mixing of codes, chunk by chunk."""

import torch
from torch import Tensor


def mix_chunks(f_ref: Tensor, f_q: Tensor, mask: Tensor) -> Tensor:
    """`f_mix[i] = m_i ? f_q[i] : f_ref[i]` (thesis, Algorithm 1), codes (N, chunks, size) and mask (N, chunks) bool."""
    return torch.where(mask.unsqueeze(-1), f_q, f_ref)


def mix_used(codes: Tensor, mask: Tensor) -> Tensor:
    """`mix_chunks` where only the candidates in use were encoded; documented at the package's function of this name."""
    n, chunks = mask.shape
    # Counting the used in the order they are listed in finds each one's place.
    place = n - 1 + mask.T.flatten().cumsum(0).unflatten(0, (chunks, n)).T
    code = torch.where(mask, place, torch.arange(n, device=mask.device)[:, None])
    return codes[code, torch.arange(chunks, device=mask.device)]
