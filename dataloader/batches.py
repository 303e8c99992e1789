"""What one update of the networks sees."""

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Reference images, a candidate for each of their quadrants, and which quadrants the candidates replace."""

    I_ref: Tensor
    """(N, 3, S, S) float32 in [-1, 1]."""
    I_q: Tensor
    """(4, N, 3, S, S) float32 in [-1, 1]: the candidates for quadrant 1, then those for quadrant 2, 3, 4."""
    mask: Tensor
    """(N, 4) bool, True where the quadrant is replaced (m_i = 1)."""

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Batch":
        """The same batch on another device, its images in another dtype."""
        return Batch(self.I_ref.to(device, dtype), self.I_q.to(device, dtype), self.mask.to(device))
