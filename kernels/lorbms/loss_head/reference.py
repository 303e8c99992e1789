"""The losses that an iteration reads off images and logits, as the equations read."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Gan = Literal["cross-entropy", "hinge"]
"""Adversarial losses: sigmoid cross entropies (thesis), or hinge losses (Zhang et al., 2019)."""
Losses = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""L_G, L_rec_hat, L_rec_prime, L_adv, L_cls."""


def loss_head(
    I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, logits: Tensor, mask: Tensor,
    weights: tuple[float, float, float], lambdas: Sequence[float], gan: Gan,
) -> Losses:  # fmt: skip
    """L_G and its parts; documented at the package's function of this name."""
    L_rec_hat, L_rec_prime = F.l1_loss(I_hat, I_ref), F.l1_loss(I_prime, I_ref)
    L_adv, L_cls = deception(D_mix, gan), classification_loss(logits, mask, lambdas)
    return total(L_rec_hat, L_rec_prime, L_adv, L_cls, weights), L_rec_hat, L_rec_prime, L_adv, L_cls


def total(
    L_rec_hat: Tensor, L_rec_prime: Tensor, L_adv: Tensor, L_cls: Tensor, weights: tuple[float, float, float]
) -> Tensor:
    """`L_G = w_rec (L_rec_hat + L_rec_prime) + w_adv L_adv + w_cls L_cls`."""
    w_rec, w_adv, w_cls = weights
    return w_rec * (L_rec_hat + L_rec_prime) + w_adv * L_adv + w_cls * L_cls


def called_real(logits: Tensor) -> Tensor:
    """Mean sigmoid cross entropy of discriminator logits against 1, over samples and patches."""
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


def called_fake(logits: Tensor) -> Tensor:
    """Mean sigmoid cross entropy of discriminator logits against 0, over samples and patches."""
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))


def is_hinge(gan: str) -> bool:
    """Tell hinge losses from cross entropies; ValueError for any other name."""
    if gan not in get_args(Gan):
        raise ValueError(f"gan {gan!r}: choose one of {', '.join(get_args(Gan))}")
    return gan == "hinge"


def deception(D_mix: Tensor, gan: Gan = "cross-entropy") -> Tensor:
    """L_adv: `bce(D(I_mix), 1)`, or `-D(I_mix)` of the hinge losses, both as means."""
    return -D_mix.mean() if is_hinge(gan) else called_real(D_mix)


def discrimination(D_ref: Tensor, D_mix: Tensor, gan: Gan = "cross-entropy") -> Tensor:
    """`L_D = bce(D(I_ref), 1) + bce(D(I_mix), 0)`, or hinge losses, `max(0, 1 - D(I_ref)) + max(0, 1 + D(I_mix))`."""
    if is_hinge(gan):
        return torch.relu(1 - D_ref).mean() + torch.relu(1 + D_mix).mean()
    return called_real(D_ref) + called_fake(D_mix)


def classification_loss(logits: Tensor, mask: Tensor, lambdas: Sequence[float]) -> Tensor:
    """`L_cls = sum_j lambda_j bce(Cls(I_mix, I_qj), y_j)`; documented at the package's function of this name."""
    targets = classification_targets(mask, logits.dtype)
    per_candidate = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))
    return torch.stack([lambda_j * loss for lambda_j, loss in zip(lambdas, per_candidate, strict=True)]).sum()


def classification_targets(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Make the targets y of L_cls, (4, N, 4), from a mask (N, 4): one-hot at j where candidate j was used, else 0."""
    return torch.diag_embed(mask.to(dtype)).transpose(0, 1)
