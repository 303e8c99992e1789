"""The loss head's differences keeping nothing but their inputs for the backward."""

from typing import Any

import torch
from torch import Tensor


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


def mean_difference(image: Tensor, reconstructed: Tensor) -> Tensor:
    """Compute the mean absolute difference. Differentiable once."""
    return _MeanDifference.apply(image, reconstructed)
