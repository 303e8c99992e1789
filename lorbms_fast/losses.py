"""The losses of the thesis (Section 3.4), each a scalar in the dtype of its inputs."""

import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.config import LossConfig
from lorbms_fast.kernels.lorbms.loss_head.reference import (
    called_fake,
    called_real,
    classification_targets,
    deception,
    discrimination,
    total,
)
from lorbms_fast.kernels.lorbms.loss_head.reference import classification_loss as classification
from lorbms_fast.types import GeneratorLosses, Scenes

__all__ = [
    "called_fake", "called_real", "classification", "classification_targets", "deception", "discrimination",
    "generation", "provenance", "reconstruction", "total",
]  # fmt: skip


def generation(I_ref: Tensor, s: Scenes, D_mix: Tensor, L_cls: Tensor, config: LossConfig) -> GeneratorLosses:
    """Compute `L_G = w_rec (L_rec_hat + L_rec_prime) + w_adv L_adv + w_cls L_cls` and its terms.

    `s` are the scenes that the forward graph made of I_ref (N, 3, S, S), `D_mix` the discriminator's logits of I_mix.
    """
    L_rec_hat, L_rec_prime = reconstruction(I_ref, s.I_hat), reconstruction(I_ref, s.I_prime)
    terms = L_rec_hat, L_rec_prime, deception(D_mix, config.gan), L_cls
    return GeneratorLosses(total(*terms, (config.rec, config.adv, config.cls)), *terms)


def reconstruction(image: Tensor, reconstructed: Tensor) -> Tensor:
    """Compute L_rec, the mean absolute difference of two image batches."""
    return F.l1_loss(reconstructed, image)


def provenance(logits: Tensor, mask: Tensor) -> Tensor:
    """Compute L_cls of a classifier that sees all images at once: `bce(Cls(I_mix, I_ref, I_q...), m)`, a mean.

    Logits and mask are (N, tiles), the mask bool, True where the tile was replaced.
    """
    return F.binary_cross_entropy_with_logits(logits, mask.to(logits.dtype))
