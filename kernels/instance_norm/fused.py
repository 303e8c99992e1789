"""Instance norm in whichever memory layout x has, with its own backward.

PyTorch's own kernel copies channels_last maps to contiguous ones and back, and takes the variance as a difference of
two large numbers when a map lies far from zero. Here every map is centred first, and all passes run along memory.
"""

from typing import Any

import torch
from torch import Tensor


def instance_norm(x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """(N, C, *positions) -> the same; documented at the definition. Differentiable once.

    Args:
        x: (N, C, *positions).
        eps: added to the variance.
        weight: scale, (C,), or None.
        bias: shift, (C,); given if and only if weight is.
    """
    result: Tensor = _InstanceNorm.apply(x, weight, bias, eps)
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


def normalise_backward(grad: Tensor, normalised: Tensor, rstd: Tensor, out: Tensor | None = None) -> Tensor:
    """`rstd (g - mean(g) - x_hat mean(g x_hat))`: the gradient of x from that of the normalised maps x_hat.

    It is written to `out` if that is given, which may be the gradient that came.
    """
    positions = tuple(range(2, grad.dim()))
    g, x_hat = grad.to(rstd.dtype), normalised.to(rstd.dtype)
    along = (g * x_hat).mean(positions, keepdim=True)
    result = (g - g.mean(positions, keepdim=True)).addcmul_(x_hat, along, value=-1)
    if out is None:
        return result.mul_(rstd).to(grad.dtype)
    # Slices of 16 bits have no fast loop for other dtypes than their own.
    return torch.mul(result, rstd, out=out) if out.dtype == rstd.dtype else out.copy_(result.mul_(rstd))


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        normalised = x.clone()
        rstd = normalise_(normalised, eps)
        ctx.save_for_backward(normalised, rstd, weight)
        if weight is None or bias is None:
            return normalised
        return torch.addcmul(_per_channel(bias, x), normalised, _per_channel(weight, x)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        normalised, rstd, weight = ctx.saved_tensors
        if weight is None:
            return normalise_backward(grad, normalised, rstd), None, None, None
        to_normalised = (grad * _per_channel(weight, grad)).to(grad.dtype)
        dx = normalise_backward(to_normalised, normalised, rstd)
        g, others = grad.to(rstd.dtype), [0, *range(2, grad.dim())]
        return dx, (g * normalised).sum(others).to(weight.dtype), g.sum(others).to(weight.dtype), None


def _per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    return parameter.view(-1, *[1] * (x.dim() - 2))
