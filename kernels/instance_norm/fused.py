"""Instance norm in whichever memory layout x has, with its own backward.

PyTorch's own kernel copies channels_last maps to contiguous ones and back, and takes the variance as a difference of
two large numbers when a map lies far from zero. Here every map is centred first, and all passes run along memory.
"""

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


def normalise_(x: Tensor, eps: float) -> Tensor:
    """Normalise maps in place; returns 1 / deviations, (N, C, 1, ...). Statistics of 16-bit maps are float32."""
    if x.dtype in (torch.bfloat16, torch.float16):
        exact = x.float()
        rstd = normalise_(exact, eps)
        x.copy_(exact)
        return rstd
    positions = tuple(range(2, x.dim()))
    x -= x.mean(positions, keepdim=True)
    rstd = x.square().mean(positions, keepdim=True).add_(eps).rsqrt_()
    x *= rstd
    return rstd


def normalise_backward(grad: Tensor, normalised: Tensor, rstd: Tensor) -> Tensor:
    """`rstd (g - mean(g) - x_hat mean(g x_hat))`: the gradient of x from that of the normalised maps x_hat."""
    positions = tuple(range(2, grad.dim()))
    g, x_hat = grad.to(rstd.dtype), normalised.to(rstd.dtype)
    along = (g * x_hat).mean(positions, keepdim=True)
    result = (g - g.mean(positions, keepdim=True)).addcmul_(x_hat, along, value=-1).mul_(rstd)
    return result.to(grad.dtype)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        normalised = x.clone()
        rstd = normalise_(normalised, eps)
        ctx.save_for_backward(normalised, rstd)
        return normalised

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        return normalise_backward(grad, *ctx.saved_tensors), None
