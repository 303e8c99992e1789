"""Instance norm with scale and shift that keeps channels_last, by torch's batch norm kernel, which does."""

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
        Tensor of x's shape, dtype and memory layout. Differentiable once where it is channels_last.
    """
    maps = x.flatten(2).unsqueeze(-1)
    if maps.is_contiguous() or not _is_channels_last(maps):
        return F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    result: Tensor = _ChannelsLast.apply(maps, weight, bias, eps)
    return result.view(x.shape)


def _is_channels_last(maps: Tensor) -> bool:
    return maps.is_contiguous(memory_format=torch.channels_last)


class _ChannelsLast(torch.autograd.Function):
    """(N, C, P, 1), channels_last: a batch norm of every sample."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        y = torch.empty_like(x)
        kept = []
        for sample, result in zip(x.split(1), y.split(1), strict=True):
            normalised, *statistics = torch.native_batch_norm(sample, weight, bias, None, None, True, 0.0, eps)
            result.copy_(normalised)
            kept += statistics
        ctx.save_for_backward(x, weight, *kept)
        ctx.eps = eps
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, *kept = ctx.saved_tensors
        dx = torch.empty_like(x)
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_weight, of_bias = [], []
        for i, result in enumerate(dx.split(1)):
            mean, rstd = kept[2 * i : 2 * i + 2]
            of_x, *of_parameters = torch.ops.aten.native_batch_norm_backward(
                *(grad[i : i + 1], x[i : i + 1], weight, None, None, mean, rstd),
                *(True, ctx.eps, [True, weight is not None, weight is not None]),
            )
            result.copy_(of_x)
            of_weight.append(of_parameters[0])
            of_bias.append(of_parameters[1])
        if weight is None:
            return dx, None, None, None
        return dx, torch.stack(of_weight).sum(0), torch.stack(of_bias).sum(0), None
