"""The losses that an iteration reads off images and patch logits, as the equations read."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_head(
    I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, target: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`mean|I_ref - I_hat|`, `mean|I_ref - I_prime|` and `bce(D(I_mix), target)` (thesis, Section 3.4).

    Args:
        I_ref: reference images, (N, 3, S, S).
        I_hat: their reconstructions, as I_ref.
        I_prime: their reconstructions through the mixed scene, as I_ref.
        D_mix: logits of the discriminator, of any shape.
        target: 1 where the discriminator should call them real, 0 where fake.

    Returns:
        Three scalars.
    """
    L_adv = F.binary_cross_entropy_with_logits(D_mix, torch.full_like(D_mix, target))
    return (I_ref - I_hat).abs().mean(), (I_ref - I_prime).abs().mean(), L_adv


def classification_loss(logits: Tensor, mask: Tensor, lambdas: Sequence[float]) -> Tensor:
    """`L_cls = sum_j lambda_j bce(Cls(I_mix, I_qj), y_j)`, y_j one-hot at j where m_j, else zero.

    Args:
        logits: (C, N, C): for each candidate j, for each sample, one logit a quadrant.
        mask: (N, C) bool, True where the quadrant was replaced.
        lambdas: the C lambda_j.

    Returns:
        A scalar.
    """
    targets = torch.diag_embed(mask.to(logits.dtype)).transpose(0, 1)
    per_candidate = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean((1, 2))
    return torch.stack([lambda_j * loss for lambda_j, loss in zip(lambdas, per_candidate, strict=True)]).sum()
