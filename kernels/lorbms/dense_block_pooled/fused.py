"""The dense block with its transition down as one node of the graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels.dense_block.fused import apply, from_stack, normalized_stack, wanted_of
from lorbms_fast.kernels.dense_block.system import System
from lorbms_fast.kernels.lorbms.pooled_conv.fused import convolved_and_pooled, unpooled_backward


def dense_block_pooled(
    x: Tensor, W: Sequence[Tensor], b: Tensor, activation: str, eps: float, weight: Tensor, bias: Tensor
) -> Tensor:
    """The activated stack through a 1x1 convolution with 2x2 max pool, (N, O, H // 2, W // 2)."""
    dtype = W[0].dtype
    return apply(_Pooled, x, W, b, activation, eps, weight.to(dtype), bias.to(dtype))


class _Pooled(torch.autograd.Function):
    """x, biases, weight and bias of a 1x1 convolution, blocks -> the activated stack convolved and pooled.

    It keeps the stack as it is before ReLU, for itself and for the convolution. It cannot be differentiated twice.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, b: Tensor, weight: Tensor, bias: Tensor, normed: bool, eps: float, *W: Tensor
    ) -> Tensor:
        stack, rstd = normalized_stack(System(W), x, b, normed, eps)
        y, places = convolved_and_pooled(stack, weight, bias, relu=True)
        ctx.save_for_backward(weight, stack, places, *W, *rstd)
        ctx.layers = len(W)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight, stack, places, *others = ctx.saved_tensors
        W, rstd = others[: ctx.layers], others[ctx.layers :]
        of_block, of_down = wanted_of(ctx.needs_input_grad, 6), ctx.needs_input_grad[2:4]
        to_stack, *grads_down = unpooled_backward(grad, stack, weight, places, (any(of_block), *of_down), relu=True)
        if to_stack is None:
            return None, None, *grads_down, *[None] * (2 + len(W))
        to_x, to_b, to_W = from_stack(System(W), of_block, to_stack, stack, rstd)
        return to_x, to_b, *grads_down, None, None, *to_W
