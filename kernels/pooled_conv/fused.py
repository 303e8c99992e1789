"""The pooled 1x1 convolution that keeps of its maps only where the greatest were, in two bytes instead of twelve."""

from collections.abc import Sequence
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
        y, places = convolved_and_pooled(x, weight, bias)
        ctx.save_for_backward(x, weight, places)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, places = ctx.saved_tensors
        return unpooled_backward(grad, x, weight, places, ctx.needs_input_grad)


def convolved_and_pooled(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and where the greatest of each window was."""
    y, places = F.max_pool2d(F.conv2d(x, weight, bias), 2, return_indices=True)
    few = x.shape[2] * x.shape[3] <= torch.iinfo(torch.int16).max
    return y, places.to(torch.int16 if few else torch.int32)


def unpooled_backward(
    grad: Tensor, x: Tensor, weight: Tensor, places: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias, as far as they are wanted."""
    n, _, height, width = x.shape
    shape = (n, len(weight), height, width)
    # The pool's backward asks what it was given for nothing but its shape and layout.
    maps = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    g = torch.ops.aten.max_pool2d_with_indices_backward(
        grad, maps, [2, 2], [2, 2], [0, 0], [1, 1], False, places.long()
    )
    ones, zeros = [1, 1], [0, 0]
    grads: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        g, x, weight, [len(weight)], ones, zeros, ones, False, zeros, 1, list(needs)
    )
    return grads
