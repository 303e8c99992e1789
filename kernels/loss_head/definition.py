"""The losses that an iteration reads off images and patch logits, as the equations read."""

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
