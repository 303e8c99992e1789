"""The pooled 1x1 convolution that keeps of its maps only where the greatest were, in a byte or two and not twelve."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common import norm_relu
from lorbms_fast.kernels._common.autocast import compute_dtype, no_autocast
from lorbms_fast.kernels._common.conv2d_backward import conv2d_backward
from lorbms_fast.kernels.lorbms.pooled_conv import cpp, reference
from lorbms_fast.kernels.max_pool.fused import pooled, unpooled

SMALL = 8 * 8
"""Positions of maps so small that torch's own operations are as good, but for loops in float32."""


def pooled_conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, C, H, W), (O, C, 1, 1), (O,) -> (N, O, H // 2, W // 2). Differentiable once, where maps are not small."""
    dtype = compute_dtype(x)
    if x.shape[2] * x.shape[3] <= SMALL and not (dtype == torch.float32 and cpp.LOOPS.take(x)):
        return reference.pooled_conv2d(x, weight, bias)
    with no_autocast(x):
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


def convolved_and_pooled(x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> tuple[Tensor, Tensor]:
    """The result of x, or of ReLU(x), and where the greatest of each window was."""
    if cpp.take(x, weight) and bias.shape == weight.shape[:1] and min(x.shape[2:]) > 1:
        y, places = cpp.forward(x, weight, bias, relu)
        return y, places
    return pooled(F.conv2d(torch.relu(x) if relu else x, weight, bias))


def unpooled_backward(
    grad: Tensor, x: Tensor, weight: Tensor, places: Tensor, needs: Sequence[bool], relu: bool = False
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, weight and bias, as far as they are wanted; `relu`: ReLU(x) was convolved, and not x.

    A gradient goes to one position of four, so that most loops take fewer products (`loops.cpp`).
    """
    if cpp.take_back(x, weight, places):
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_x = cpp.backward_input(grad, places, x, weight, relu) if needs[0] else None
        of_taps = cpp.backward_taps(grad, places, x, weight, relu) if needs[1] or needs[2] else (None, None)
        return to_x, *of_taps
    g = unpooled(grad, places, *x.shape[2:])
    to_a, *of_taps = conv2d_backward(g, torch.relu(x) if relu else x, weight, needs)
    return norm_relu.relu_backward(to_a, x) if relu and needs[0] else to_a, *of_taps
