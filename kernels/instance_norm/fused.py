"""Instance norm in whichever memory layout x has, with its own backward.

PyTorch's own kernel copies channels_last maps to contiguous ones and back, and takes the variance as a difference of
two large numbers when a map lies far from zero. Here every map is centred first, and all passes run along memory.
"""

from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common.norm_relu import normalize, normalize_backward


def instance_norm(x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """(N, C, *positions) -> the same; documented in `reference.py`. Differentiable once.

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


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        normalized = torch.empty_like(x)
        rstd = normalize(x, normalized, eps)
        ctx.save_for_backward(normalized, rstd, weight)
        if weight is None or bias is None:
            return normalized
        return torch.addcmul(_per_channel(bias, x), normalized, _per_channel(weight, x)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        normalized, rstd, weight = ctx.saved_tensors
        if weight is None:
            return normalize_backward(grad, normalized, rstd, torch.empty_like(grad)), None, None, None
        to_normalised = (grad * _per_channel(weight, grad)).to(grad.dtype)
        dx = normalize_backward(to_normalised, normalized, rstd, to_normalised)
        g, others = grad.to(rstd.dtype), [0, *range(2, grad.dim())]
        return dx, (g * normalized).sum(others).to(weight.dtype), g.sum(others).to(weight.dtype), None


def _per_channel(parameter: Tensor, x: Tensor) -> Tensor:
    return parameter.view(-1, *[1] * (x.dim() - 2))
