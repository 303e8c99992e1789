"""Instance norm with scale and shift that keeps channels_last, in torch operations that are fast for it on a CPU.

For such maps `mean` is fast and `var_mean` is not: two means, of x and of (x - mean)^2, take a fraction of its time.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def affine_instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`weight (x - mean) / sqrt(var + eps) + bias`, mean and biased variance of each map.

    Args:
        x: (N, C, *positions), floating point.
        weight: (C,) or None.
        bias: (C,), or None if and only if weight is.
        eps: added to the variance.

    Returns:
        Tensor of x's shape, dtype and memory layout. Differentiable once where channels are neighbours in memory.
    """
    maps = x.flatten(2)
    if maps.stride(1) != 1 or maps.is_contiguous():
        return F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    result: Tensor = _ChannelsLast.apply(maps, weight, bias, eps)
    return result.view(x.shape)


class _ChannelsLast(torch.autograd.Function):
    """(N, C, P) -> the same; sums are float32 at least."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        wide = x.float() if x.dtype.itemsize < 4 else x
        centred = wide - wide.mean(2, keepdim=True)
        rstd = (centred.square().mean(2, keepdim=True) + eps).rsqrt_()
        ctx.save_for_backward(centred, rstd, weight)
        ctx.dtype = x.dtype
        if weight is None or bias is None:
            return (centred * rstd).to(x.dtype)
        return torch.addcmul(bias.view(-1, 1), centred, rstd * weight.view(-1, 1)).to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        centred, rstd, weight = ctx.saved_tensors
        g, P = grad.to(centred.dtype), grad.shape[2]
        sum_g, sum_gn = g.sum(2, keepdim=True), (g * centred).sum(2, keepdim=True).mul_(rstd)
        scale = rstd if weight is None else rstd * weight.view(-1, 1)
        # `scale (g - mean(g) - n mean(g n))` with `n = centred rstd`.
        dx = torch.addcmul(scale * sum_g / -P, g, scale).addcmul_(centred, scale * sum_gn * rstd / -P).to(ctx.dtype)
        if weight is None:
            return dx, None, None, None
        return dx, sum_gn.sum((0, 2)).to(weight.dtype), sum_g.sum((0, 2)).to(weight.dtype), None
