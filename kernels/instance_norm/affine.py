"""Instance norm with scale and shift in plain torch operations that keep the memory layout."""

from typing import Any

import torch
from torch import Tensor


def affine_instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`weight (x - mean) / sqrt(var + eps) + bias`, channels_last maps staying so.

    Args:
        x: (N, C, *positions), floating point.
        weight: (C,) or None.
        bias: (C,), or None if and only if weight is.
        eps: added to the biased variance.

    Returns:
        Tensor of x's shape, dtype and memory layout. Differentiable once.
    """
    result: Tensor = _AffineInstanceNorm.apply(x, weight, bias, eps)
    return result


class _AffineInstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        maps = x.flatten(2)
        var, mean = torch.var_mean(maps.float() if x.dtype.itemsize < 4 else maps, 2, correction=0, keepdim=True)
        rstd = (var + eps).rsqrt()
        centred = maps - mean
        ctx.save_for_backward(maps, mean, rstd, weight)
        ctx.shape = x.shape
        if weight is None or bias is None:
            y = centred.mul_(rstd)
        else:
            y = torch.addcmul(bias.view(-1, 1), centred, rstd * weight.view(-1, 1))
        return y.to(x.dtype).view(x.shape)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        maps, mean, rstd, weight = ctx.saved_tensors
        g = grad.flatten(2)
        n = (maps - mean).mul_(rstd)
        sum_g, sum_gn = g.sum(2, keepdim=True, dtype=n.dtype), (g * n).sum(2, keepdim=True)
        scale = rstd if weight is None else rstd * weight.view(-1, 1)
        P = maps.shape[2]
        dx = n.mul_(sum_gn / -P).add_(g).sub_(sum_g / P).mul_(scale).to(maps.dtype).view(ctx.shape)
        if weight is None:
            return dx, None, None, None
        return dx, sum_gn.sum((0, 2)).to(weight.dtype), sum_g.sum((0, 2)).to(weight.dtype), None
