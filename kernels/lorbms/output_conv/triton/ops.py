"""The 1x1 convolution of a stack in two parts and tanh in one launch; back, one and a sum of parts."""

from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.custom_op import at_least_16, input_precision, triton_op
from lorbms_fast.kernels._common.partial_sums import empty_partials, reduce_partials
from lorbms_fast.kernels.lorbms.output_conv.triton import kernels

BLOCK_M = 128
"""Positions a tile."""
PARTS = 64
"""Max. partial sums of a weight gradient."""


@triton_op("output_conv")
def output_conv(x: Tensor, new_maps: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, O, H, W) of `dtype`, channels_last; documented at the package's function output_conv2d."""
    (N, C, H, W), D, O = x.shape, new_maps.shape[1], weight.shape[0]
    y = _empty_result(x, new_maps, weight, bias, dtype)
    positions, block_o = N * H * W, at_least_16(O, 64)
    kernels.forward[triton.cdiv(positions, BLOCK_M), triton.cdiv(O, block_o)](
        x, x.stride(), new_maps, new_maps.stride(), weight.contiguous(), bias, y, positions, C, D, O, H, W,
        PRECISION=input_precision(dtype), BLOCK_M=BLOCK_M, BLOCK_O=block_o, BLOCK_K=32, num_warps=4, num_stages=3,
    )  # fmt: skip
    return y


@output_conv.register_fake
def _empty_result(x: Tensor, new_maps: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    N, _, H, W = x.shape
    return x.new_empty((N, H, W, weight.shape[0]), dtype=dtype).permute(0, 3, 1, 2)


@triton_op("output_conv_backward")
def output_conv_backward(
    grad: Tensor, y: Tensor, x: Tensor, new_maps: Tensor, weight: Tensor, needs_stack: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x and of new_maps, empty where not needed; of weight and bias one behind the other."""
    (N, C, H, W), D, O = x.shape, new_maps.shape[1], weight.shape[0]
    dx, dmaps, of_parameters = _empty_gradients(grad, y, x, new_maps, weight, needs_stack)
    positions, block_o = N * H * W, max(16, triton.next_power_of_2(O))
    tiles = triton.cdiv(positions, BLOCK_M)
    tiles_per_part = triton.cdiv(tiles, min(tiles, PARTS))
    parts = triton.cdiv(tiles, tiles_per_part)
    partial = of_parameters if parts == 1 else empty_partials(of_parameters, parts)
    most = 64 if y.dtype.itemsize == 2 else 32  # float32 spills with more
    block_c = at_least_16(max(C, D), most)
    kernels.gradients[parts, triton.cdiv(C, block_c) + triton.cdiv(D, block_c)](
        grad, grad.stride(), y, x, x.stride(), new_maps, new_maps.stride(), weight.contiguous(),
        dx if needs_stack else None, dx.stride() if needs_stack else x.stride(),
        dmaps if needs_stack else None, dmaps.stride() if needs_stack else x.stride(),
        partial, tiles_per_part, positions, C, D, O, H, W,
        PRECISION=input_precision(y.dtype), BLOCK_M=BLOCK_M, BLOCK_O=block_o, BLOCK_C=block_c,
        num_warps=8, num_stages=2,
    )  # fmt: skip
    if parts > 1:
        reduce_partials(partial, of_parameters)
    return dx, dmaps, of_parameters


@output_conv_backward.register_fake
def _empty_gradients(
    grad: Tensor, y: Tensor, x: Tensor, new_maps: Tensor, weight: Tensor, needs_stack: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dx, dmaps = (torch.empty_like(part) if needs_stack else part.new_empty(0) for part in (x, new_maps))
    return dx, dmaps, weight.new_empty(weight.numel() + weight.shape[0])


def _setup(ctx: Any, inputs: Any, output: Tensor) -> None:
    x, new_maps, weight, bias, _ = inputs
    ctx.save_for_backward(output, x, new_maps, weight)
    ctx.bias_dtype = bias.dtype


def _backward(ctx: Any, grad: Tensor) -> Any:
    of_x, of_maps, of_weight, of_bias, _ = ctx.needs_input_grad
    *_, weight = saved = ctx.saved_tensors
    dx, dmaps, of_parameters = output_conv_backward(grad, *saved, of_x or of_maps)
    dweight = of_parameters[: weight.numel()].view(weight.shape) if of_weight else None
    dbias = of_parameters[weight.numel() :].to(ctx.bias_dtype) if of_bias else None
    return dx if of_x else None, dmaps if of_maps else None, dweight, dbias, None


output_conv.register_autograd(_backward, setup_context=_setup)
