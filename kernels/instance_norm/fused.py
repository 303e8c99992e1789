"""Instance norm by torch's batch norm kernel: a map of a sample is a channel of a batch of one."""

from typing import Any

import torch
from torch import Tensor


def instance_norm(x: Tensor, eps: float) -> Tensor:
    """(N, C, *positions) -> the same; documented at the definition. Differentiable once."""
    result: Tensor = _InstanceNorm.apply(x, eps)
    return result


def instance_norm_relu(x: Tensor, eps: float) -> Tensor:
    """`ReLU(instance_norm(x))`."""
    return torch.relu(instance_norm(x, eps))


def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised maps of x's shape, and what `normalise_backward` needs: centred maps, their means, 1 / deviations.

    The kernel computes `x * rstd - mean * rstd`, which for a nearly constant map is a difference of large numbers
    unless its mean is gone before.
    """
    maps = x.contiguous().reshape(1, -1, *x.shape[2:])
    centred = maps - maps.mean(tuple(range(2, maps.dim())), keepdim=True)
    normalised, mean, rstd = torch.native_batch_norm(centred, None, None, None, None, True, 0.0, eps)
    return normalised.view(x.shape), centred, mean, rstd


def normalise_backward(grad: Tensor, centred: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    """Gradient of x from that of the normalised maps, in the latter's shape.

    Contiguous, because torch 2.13's kernel gives wrong gradients for one that is channels_last.
    """
    maps = grad.contiguous().view(centred.shape)
    result, _, _ = torch.ops.aten.native_batch_norm_backward(
        maps, centred, None, None, None, mean, rstd, True, 0.0, [True, False, False]
    )
    return result.view(grad.shape)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        normalised, *kept = normalise(x, eps)
        ctx.save_for_backward(*kept)
        return normalised

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return normalise_backward(grad, *ctx.saved_tensors), None
