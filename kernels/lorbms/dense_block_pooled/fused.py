"""The dense block with its transition down as one node of the graph."""

from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels.dense_block.fused import System, apply, from_activated, normalized_stack
from lorbms_fast.kernels.lorbms.pooled_conv.fused import convolved_and_pooled, unpooled_backward


def dense_block_pooled(
    x: Tensor, W: Tensor, b: Tensor, layers: int, activation: str, eps: float, weight: Tensor, bias: Tensor
) -> Tensor:
    """The activated stack through a 1x1 convolution with 2x2 max pool, (N, O, H // 2, W // 2)."""
    down = weight.to(W.dtype), bias.to(W.dtype)
    return apply(_Pooled, x, W, b, layers, activation, eps, *down)


class _Pooled(torch.autograd.Function):
    """x, matrix, biases, weight and bias of a 1x1 convolution -> the activated stack convolved and pooled.

    It keeps the stack as it is before ReLU, for itself and for the convolution. It cannot be differentiated twice.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, b: Tensor, weight: Tensor, bias: Tensor, growth: int, normed: bool, eps: float
    ) -> Tensor:
        stack, rstd = normalized_stack(System(W, growth), x, b, normed, eps)
        y, places = convolved_and_pooled(torch.relu(stack), weight, bias)
        ctx.save_for_backward(W, weight, stack, places, *rstd)
        ctx.growth = growth
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        W, weight, stack, places, *rstd = ctx.saved_tensors
        needs = ctx.needs_input_grad
        to_a, *grads_down = unpooled_backward(grad, torch.relu(stack), weight, places, (any(needs[:3]), *needs[3:5]))
        if to_a is None:
            return None, None, None, *grads_down, None, None, None
        grads = from_activated(System(W, ctx.growth), needs, to_a, stack, rstd)
        return *grads, *grads_down, None, None, None
