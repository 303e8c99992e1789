"""The pooled 1x1 convolution that keeps of its maps only where the greatest were, in two bytes instead of twelve."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels.autocast import product_dtype


def pooled_conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, C, H, W), (O, C, 1, 1), (O,) -> (N, O, H // 2, W // 2). Differentiable once."""
    dtype = product_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        result: Tensor = _PooledConv.apply(x.to(dtype), weight.to(dtype), bias.to(dtype))
    return result


class _PooledConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        maps = F.conv2d(x, weight, bias)
        y, places = F.max_pool2d(maps, 2, return_indices=True)
        few = maps.shape[2] * maps.shape[3] <= torch.iinfo(torch.int16).max
        ctx.save_for_backward(x, weight, places.to(torch.int16 if few else torch.int32))
        ctx.maps = torch.empty_like(maps, device="meta")
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, places = ctx.saved_tensors
        maps = torch.empty_like(ctx.maps, device=x.device)  # the pool's backward asks it for nothing but its shape
        g = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, maps, [2, 2], [2, 2], [0, 0], [1, 1], False, places.long()
        )
        ones, zeros = [1, 1], [0, 0]
        return torch.ops.aten.convolution_backward(
            g, x, weight, [len(weight)], ones, zeros, ones, False, zeros, 1, list(ctx.needs_input_grad)
        )
