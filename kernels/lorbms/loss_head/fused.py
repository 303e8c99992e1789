"""The loss head keeping nothing but its inputs for the backward."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels.lorbms.loss_head.reference import Gan, Losses, classification_loss, deception, total


def loss_head(
    I_ref: Tensor,
    I_hat: Tensor,
    I_prime: Tensor,
    D_mix: Tensor,
    logits: Tensor,
    mask: Tensor,
    weights: tuple[float, float, float],
    lambdas: Sequence[float],
    gan: Gan,
) -> Losses:
    """L_G and its parts; documented at the package's function of this name. Differentiable once."""
    L_rec_hat, L_rec_prime = _MeanDifference.apply(I_ref, I_hat), _MeanDifference.apply(I_ref, I_prime)
    L_adv, L_cls = deception(D_mix, gan), classification_loss(logits, mask, lambdas)
    return total(L_rec_hat, L_rec_prime, L_adv, L_cls, weights), L_rec_hat, L_rec_prime, L_adv, L_cls


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
