"""Types that the parts of the system exchange: networks, batches, scenes, losses and metrics."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lorbms_fast.mixing import used_candidates
from lorbms_fast.psnr import psnr


class Networks(nn.Module):
    """Enc, Dec, D and Cls of the equations; their parameters' names begin with `enc.`, `dec.`, `dsc.`, `cls.`."""

    def __init__(self, enc: nn.Module, dec: nn.Module, dsc: nn.Module, cls: nn.Module) -> None:
        super().__init__()
        self.enc = enc
        self.dec = dec
        self.dsc = dsc
        self.cls = cls

    @property
    def generator(self) -> list[nn.Parameter]:
        """Parameters that L_G moves: encoder's and decoder's."""
        return [*self.enc.parameters(), *self.dec.parameters()]


class Batch(NamedTuple):
    """Reference images, a candidate for each of their quadrants, and which quadrants the candidates replace.

    All are tensors and offer DLPack: CuPy, JAX and numpy take them without a copy (`cupy.from_dlpack(batch.I_ref)`).
    """

    I_ref: Tensor
    """(N, 3, S, S) float32 in [-1, 1]."""
    I_q: Tensor
    """(4, N, 3, S, S) float32 in [-1, 1]: the candidates for quadrant 1, then those for quadrant 2, 3, 4. Variants: one
    for each tile, or one for all, (1, N, 3, S, S)."""
    mask: Tensor
    """(N, 4) bool, True where the quadrant is replaced (m_i = 1); in variants (N, tiles)."""
    used: Tensor | None = None
    """(2, K) int64, `used_candidates(mask)`, possibly padded; where it is None the mask is searched for it, which on a
    GPU makes the host wait."""

    def first(self, n: int) -> "Batch":
        """Take the first n samples."""
        return Batch(self.I_ref[:n], self.I_q[:, :n], self.mask[:n])

    def to(self, device: torch.device | str) -> "Batch":
        """Copy the batch to another device, its mask searched before."""
        used = used_candidates(self.mask) if self.used is None else self.used
        tensors = [self.I_ref, self.I_q, self.mask, used]
        if torch.device(device).type == "cuda":  # the host goes on at once only from pinned memory
            tensors = [tensor if tensor.is_cuda else tensor.pin_memory() for tensor in tensors]
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


class BatchIndices(NamedTuple):
    """The images of a batch by their rows, or of many batches along the first dimension."""

    rows: Tensor
    """(5, N) int64, rows of the store: reference images, then the candidates for quadrant 1, 2, 3, 4."""
    mask: Tensor
    """(N, 4) bool, see `Batch`."""


DrawFn = Callable[[range], BatchIndices]
"""Function from numbers of batches to their indices, (number, ...)."""


@dataclass(frozen=True)
class Scenes:
    """Codes (N, 4, chunk) and images (N, 3, S, S) of the forward graph (thesis, Figure 3.2)."""

    f_ref: Tensor
    f_mix: Tensor
    f_mix_hat: Tensor
    f_ref_hat: Tensor
    I_hat: Tensor
    I_mix: Tensor
    I_prime: Tensor


@dataclass(frozen=True)
class GeneratorLosses:
    """L_G and its terms before they are weighted; each a scalar tensor."""

    L_G: Tensor
    L_rec_hat: Tensor
    L_rec_prime: Tensor
    L_adv: Tensor
    L_cls: Tensor


@dataclass(frozen=True)
class StepMetrics:
    """Losses before the update they drove (the second of the generator's two), and the PSNR of I_hat in dB.

    Detached scalars that stay on the device until somebody asks for `numbers`.
    """

    L_G: Tensor
    L_rec_hat: Tensor
    L_rec_prime: Tensor
    L_adv: Tensor
    L_cls_G: Tensor
    L_cls: Tensor
    L_D: Tensor
    psnr: Tensor

    @classmethod
    def of(cls, generator: GeneratorLosses, I_ref: Tensor, I_hat: Tensor, L_cls: Tensor, L_D: Tensor) -> "StepMetrics":
        """Gather the numbers of one iteration."""
        g = generator
        values = (g.L_G, g.L_rec_hat, g.L_rec_prime, g.L_adv, g.L_cls, L_cls, L_D, psnr(I_hat.detach(), I_ref))
        return cls(*(value.detach() for value in values))

    @classmethod
    def names(cls) -> list[str]:
        """List the names of the numbers, in order."""
        return [field.name for field in fields(cls)]

    @classmethod
    def unstacked(cls, values: Tensor) -> "StepMetrics":
        """Undo `stacked`, without a copy."""
        return cls(*values.unbind())

    def stacked(self) -> Tensor:
        """Stack all of them in one float64 vector."""
        return torch.stack([getattr(self, name).double() for name in self.names()])

    def numbers(self) -> dict[str, float]:
        """Convert all of them to floats; waits for the device once."""
        return dict(zip(self.names(), self.stacked().tolist(), strict=True))
