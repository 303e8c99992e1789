"""The numbers an iteration reports."""

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.losses import GeneratorLosses


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
    def of(
        cls,
        parts: GeneratorLosses,
        I_ref: Tensor,
        I_hat: Tensor,
        L_cls: Tensor,
        L_D: Tensor,
    ) -> "StepMetrics":
        """Gather the numbers of one iteration."""
        psnr = 10 * torch.log10(4 / F.mse_loss(I_hat.detach(), I_ref))  # images span [-1, 1]: the peak is 2
        values = (parts.L_G, parts.L_rec_hat, parts.L_rec_prime, parts.L_adv, parts.L_cls, L_cls, L_D, psnr)
        return cls(*(value.detach() for value in values))

    @classmethod
    def names(cls) -> list[str]:
        """What is reported, in order."""
        return [field.name for field in fields(cls)]

    @classmethod
    def unstacked(cls, values: Tensor) -> "StepMetrics":
        """The inverse of `stacked`, without a copy."""
        return cls(*values.unbind())

    def stacked(self) -> Tensor:
        """All of them in one vector."""
        return torch.stack([getattr(self, name).double() for name in self.names()])

    def numbers(self) -> dict[str, float]:
        """All of them as floats; waits for the device once."""
        return dict(zip(self.names(), self.stacked().tolist(), strict=True))
