"""The pooled 1x1 convolution as torch.library operations: one launch each way, and a sum of parts."""

from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.custom_op import at_least_16, input_precision, triton_op
from lorbms_fast.kernels._common.partial_sums import empty_partials, reduce_partials
from lorbms_fast.kernels.lorbms.pooled_conv.triton import kernels

_PROGRAMS = 96
"""Programs for the parameters' gradients: nearly as many as a large GPU has multiprocessors; the input's come beside
them."""
_ROWS_PER_PART = 512
"""Min. rows of a partial sum."""


@triton_op("pooled_conv")
def pooled_conv(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """y of `dtype`, and which position of each window it comes from, (N, H // 2, W // 2, O) bytes."""
    (N, C, H, W), O = x.shape, weight.shape[0]
    y, which = _results(x, weight, bias, dtype)
    windows = N * (H // 2) * (W // 2)
    M, n, K = (at_least_16(size, most) for size, most in ((4 * windows, 128), (O, 64), (C, 32)))
    kernels.forward[triton.cdiv(4 * windows, M), triton.cdiv(O, n)](
        x, x.stride(), weight.contiguous(), bias.contiguous(), y, which, windows, C, O, H // 2, W // 2,
        PRECISION=input_precision(dtype), BLOCK_M=M, BLOCK_N=n, BLOCK_K=K, num_warps=8 if M == 128 else 4, num_stages=3,
    )  # fmt: skip
    return y, which


@pooled_conv.register_fake
def _results(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    N, _, H, W = x.shape
    shape = (N, H // 2, W // 2, weight.shape[0])
    return x.new_empty(shape, dtype=dtype).permute(0, 3, 1, 2), x.new_empty(shape, dtype=torch.uint8)


@triton_op("pooled_conv_backward")
def pooled_conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, which: Tensor, needs_x: bool, needs_parameters: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of x, and of weight and bias one behind the other; empty where not needed."""
    (N, C, H, W), O = x.shape, weight.shape[0]
    dx, of_parameters = _gradients(grad, x, weight, which, needs_x, needs_parameters)
    rows, windows = 4 * N * (H // 2) * (W // 2), N * triton.cdiv(H, 2) * triton.cdiv(W, 2)
    # Without tensor cores registers spill with more: Triton 3.8 loads what a block of products reads before the first.
    M, n = (64, 32) if input_precision(grad.dtype) == "ieee" else (128, 64)
    blocks = {"BLOCK_M": at_least_16(4 * windows, M), "BLOCK_C": at_least_16(C, n), "BLOCK_O": at_least_16(O, 64)}
    blocks |= {"BLOCK_K": at_least_16(O, 32), "BLOCK_Q": at_least_16(rows, 64)}
    columns = triton.cdiv(C, blocks["BLOCK_C"])
    of_x = triton.cdiv(4 * windows, blocks["BLOCK_M"]) * columns if needs_x else 0
    of_part = columns * triton.cdiv(O, blocks["BLOCK_O"]) if needs_parameters else 0
    parts = max(1, min(_PROGRAMS // of_part, triton.cdiv(rows, _ROWS_PER_PART))) if needs_parameters else 0
    rows_per_part = triton.cdiv(triton.cdiv(rows, max(1, parts)), blocks["BLOCK_Q"]) * blocks["BLOCK_Q"]
    partial = of_parameters if parts <= 1 else empty_partials(of_parameters, parts)
    kernels.gradients[(of_x + parts * of_part,)](
        grad, grad.stride(), which, x, x.stride(), weight.contiguous(), dx, dx.stride() if needs_x else x.stride(),
        partial, rows_per_part, N, C, O, H, W, of_x, PRECISION=input_precision(grad.dtype), **blocks,
        num_warps=8, num_stages=3 if grad.dtype.itemsize == 2 else 2,
    )  # fmt: skip
    if parts > 1:
        reduce_partials(partial, of_parameters)
    return dx, of_parameters


@pooled_conv_backward.register_fake
def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, which: Tensor, needs_x: bool, needs_parameters: bool
) -> tuple[Tensor, Tensor]:
    parameters = weight.numel() + weight.shape[0] if needs_parameters else 0
    return torch.empty_like(x) if needs_x else x.new_empty(0), weight.new_empty(parameters)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, bias, _ = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.bias_dtype = bias.dtype
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> Any:
    if grad is None:
        return (None,) * 4
    needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
    _, weight, _ = saved = ctx.saved_tensors
    dx, of_parameters = pooled_conv_backward(grad, *saved, needs_x, needs_weight or needs_bias)
    of_weight = of_parameters[: weight.numel()].view(weight.shape) if needs_weight else None
    of_bias = of_parameters[weight.numel() :].to(ctx.bias_dtype) if needs_bias else None
    return dx if needs_x else None, of_weight, of_bias, None


pooled_conv.register_autograd(_backward, setup_context=_setup)
