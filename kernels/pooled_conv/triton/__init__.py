"""The pooled 1x1 convolution as torch.library operations: one launch forward; back, one and torch's convolution."""

from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels.operation import operation
from lorbms_fast.kernels.pooled_conv.triton import programs

_BLOCK = 1024


@operation("pooled_conv")
def pooled_conv(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """y of `dtype`, and which position of each window it comes from, (N, H // 2, W // 2, O) bytes."""
    (N, C, H, W), O = x.shape, weight.shape[0]
    y, which = _results(x, weight, bias, dtype)
    windows = N * (H // 2) * (W // 2)
    precision = "ieee" if dtype == torch.float32 and not torch.backends.cudnn.allow_tf32 else "tf32"
    M, n, K = (
        min(most, max(16, triton.next_power_of_2(size))) for most, size in ((128, 4 * windows), (64, O), (32, C))
    )
    programs.forward[triton.cdiv(4 * windows, M), triton.cdiv(O, n)](
        x, x.stride(), weight.contiguous(), bias.contiguous(), y, which, windows, C, O, H // 2, W // 2,
        PRECISION=precision, BLOCK_M=M, BLOCK_N=n, BLOCK_K=K, num_warps=8 if M == 128 else 4, num_stages=3,
    )  # fmt: skip
    return y, which


@pooled_conv.register_fake
def _results(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    N, _, H, W = x.shape
    shape = (N, H // 2, W // 2, weight.shape[0])
    return x.new_empty(shape, dtype=dtype).permute(0, 3, 1, 2), x.new_empty(shape, dtype=torch.uint8)


@operation("pooled_conv_backward")
def pooled_conv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, which: Tensor, needs_x: bool, needs_parameters: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias; empty where not needed."""
    (N, _, H, W), O = x.shape, weight.shape[0]
    g = grad.new_empty((N, H, W, O))
    programs.spread[(triton.cdiv(g.numel(), _BLOCK),)](grad, grad.stride(), which, g, g.numel(), H, W, O, BLOCK=_BLOCK)
    ones, zeros, needs = [1, 1], [0, 0], [needs_x, needs_parameters, needs_parameters]
    found = torch.ops.aten.convolution_backward(
        g.permute(0, 3, 1, 2), x.to(g.dtype), weight.to(g.dtype), [O], ones, zeros, ones, False, zeros, 1, needs
    )
    promised = _gradients(grad, x, weight, which, needs_x, needs_parameters)
    return tuple(
        gradient if needed and _alike(gradient, result) else result.copy_(gradient) if needed else result
        for result, gradient, needed in zip(promised, found, needs, strict=True)
    )


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.stride() == b.stride()


@pooled_conv_backward.register_fake
def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, which: Tensor, needs_x: bool, needs_parameters: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(x) if needs_x else x.new_empty(0),
        torch.empty_like(weight) if needs_parameters else x.new_empty(0),
        weight.new_empty(weight.shape[0] if needs_parameters else 0),
    )


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, _, _ = inputs
    ctx.save_for_backward(x, weight, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _: Any) -> Any:
    if grad is None:
        return None, None, None, None
    x, weight, which = ctx.saved_tensors
    of_x, of_weight, of_bias, _ = ctx.needs_input_grad
    grad_x, grad_W, grad_b = pooled_conv_backward(grad, x, weight, which, of_x, of_weight or of_bias)
    return grad_x if of_x else None, grad_W if of_weight else None, grad_b if of_bias else None, None


pooled_conv.register_autograd(_backward, setup_context=_setup)
