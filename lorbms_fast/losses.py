"""The losses of the thesis (Section 3.4), each a scalar in the dtype of its inputs."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.config import LossConfig
from lorbms_fast.engine.scenes import Scenes
from lorbms_fast.kernels.loss_head.definition import classification_loss

Gan = Literal["cross-entropy", "hinge"]


@dataclass(frozen=True)
class GeneratorLosses:
    """The parts of L_G; each a scalar tensor."""

    L_rec_hat: Tensor
    L_rec_prime: Tensor
    L_adv: Tensor
    L_cls: Tensor

    def total(self, config: LossConfig) -> Tensor:
        """`L_G = lambda_rec (L_rec_hat + L_rec_prime) + lambda_adv L_adv + lambda_cls L_cls`."""
        L_rec = self.L_rec_hat + self.L_rec_prime
        return config.rec * L_rec + config.adv * self.L_adv + config.cls * self.L_cls


def generation(
    I_ref: Tensor, s: Scenes, D_mix: Tensor, cls_logits: Tensor, mask: Tensor, config: LossConfig
) -> GeneratorLosses:
    """The parts of L_G, however the scenes and logits were computed.

    Args:
        I_ref: reference images, (N, 3, S, S).
        s: what the forward graph made of them.
        D_mix: discriminator logits of I_mix.
        cls_logits: (4, N, 4), see `classification`.
        mask: (N, 4) bool, True where the quadrant was replaced.
        config: weights of the losses.
    """
    return GeneratorLosses(
        L_rec_hat=reconstruction(I_ref, s.I_hat),
        L_rec_prime=reconstruction(I_ref, s.I_prime),
        L_adv=deception(D_mix, config.gan),
        L_cls=classification(cls_logits, mask, config.lambdas),
    )


def reconstruction(image: Tensor, reconstructed: Tensor) -> Tensor:
    """Mean absolute difference of two image batches (L_rec)."""
    return F.l1_loss(reconstructed, image)


def called_real(logits: Tensor) -> Tensor:
    """Mean sigmoid cross entropy of discriminator logits against 1, over samples and patches."""
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def called_fake(logits: Tensor) -> Tensor:
    """Mean sigmoid cross entropy of discriminator logits against 0, over samples and patches."""
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def deception(D_mix: Tensor, gan: Gan = "cross-entropy") -> Tensor:
    """L_adv: `bce(D(I_mix), 1)`, or `-D(I_mix)` of the hinge losses (Zhang et al., 2019), both as means."""
    return -D_mix.mean() if gan == "hinge" else called_real(D_mix)


def discrimination(D_ref: Tensor, D_mix: Tensor, gan: Gan = "cross-entropy") -> Tensor:
    """`L_D = bce(D(I_ref), 1) + bce(D(I_mix), 0)`, or hinge losses, `max(0, 1 - D(I_ref)) + max(0, 1 + D(I_mix))`."""
    if gan == "hinge":
        return torch.relu(1 - D_ref).mean() + torch.relu(1 + D_mix).mean()
    return called_real(D_ref) + called_fake(D_mix)


classification = classification_loss
"""L_cls, documented where it is defined."""


def provenance(logits: Tensor, mask: Tensor) -> Tensor:
    """L_cls of a classifier that sees all images at once: `bce(Cls(I_mix, I_ref, I_q...), m)`, a mean.

    Args:
        logits: (N, tiles), one logit a tile.
        mask: (N, tiles) bool, True where the tile was replaced.
    """
    return F.binary_cross_entropy_with_logits(logits, mask.to(logits.dtype))
