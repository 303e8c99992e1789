"""Constant matrices beside the tensors that they multiply, copied from the host once.

While a CUDA graph is captured nothing may be copied from the host's pageable memory; at any other time that waits.
"""

from functools import cache

import torch
from torch import Tensor

Table = tuple[tuple[int, ...], ...]


def beside(x: Tensor, table: Table) -> Tensor:
    """Make a matrix of numbers, of a tensor's dtype and on its device; treat it as read-only."""
    plain = type(x) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()
    return _kept(table, x.device, x.dtype) if plain else torch.tensor(table, device=x.device, dtype=x.dtype)


@cache
def _kept(table: Table, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(table, device=device, dtype=dtype)
