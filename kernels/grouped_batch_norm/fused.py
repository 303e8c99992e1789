"""Batch normalization of groups with torch's own kernel, once a group."""

import torch
from torch import Tensor


def grouped_batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Result, means and biased variances; documented in `reference.py`."""
    parts = [torch.native_batch_norm(part, gamma, beta, None, None, True, 0.0, eps) for part in x.chunk(groups)]
    results, means, rstds = zip(*parts, strict=True)
    return torch.cat(results), torch.stack(means), torch.stack(rstds).pow(-2) - eps
