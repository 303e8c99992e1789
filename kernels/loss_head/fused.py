"""The loss head keeping nothing but its inputs for the backward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def loss_head(
    I_ref: Tensor, I_hat: Tensor, I_prime: Tensor, D_mix: Tensor, target: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Three scalars; documented at the definition. Differentiable once."""
    L_rec_hat, L_rec_prime = _MeanDifference.apply(I_ref, I_hat), _MeanDifference.apply(I_ref, I_prime)
    return L_rec_hat, L_rec_prime, F.binary_cross_entropy_with_logits(D_mix, torch.full_like(D_mix, target))


class _MeanDifference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, reconstructed: Tensor) -> Tensor:
        ctx.save_for_backward(image, reconstructed)
        return torch.sub(image, reconstructed).abs_().mean()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        image, reconstructed = ctx.saved_tensors
        of_reconstructed = torch.sub(reconstructed, image).sign_().mul_(grad / image.numel())
        of_image = -of_reconstructed if ctx.needs_input_grad[0] else None
        return of_image, of_reconstructed if ctx.needs_input_grad[1] else None
