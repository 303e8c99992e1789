"""Instance norm in the memory layout of its input, by C++ loops if there is a compiler, else by operations of torch's.

PyTorch's own copies channels_last maps to contiguous ones, leaves them there, and computes a normalized value as the
difference of two large numbers when a map lies far from zero. Ours reads differences from the map's first position.
It keeps x and each map's statistics for the backward and not the result, which others may change in place.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.activation import IDENTITY, Activation
from lorbms_fast.kernels._common.cpp.lines import DTYPES, empty_channels_last, line_stride
from lorbms_fast.kernels.instance_norm import aten, cpp, reference

FEW_POSITIONS = 1024
"""Of a contiguous map of 16 bits, up to which torch's own norm spends more on a map's beginning than on its values."""


def instance_norm(
    x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None, activation: Activation = IDENTITY
) -> Tensor:
    """(N, C, *positions) -> the same, in x's memory layout; documented in `reference.py`.

    Args:
        x: (N, C, *positions).
        eps: added to the variance.
        weight: scale, (C,), or None.
        bias: shift, (C,), or None.
        activation: of the result.
    """
    if torch.compiler.is_compiling():  # whose compiler fuses the definition; torch's kernel would leave the layout
        return reference.instance_norm(x, eps, weight, bias, activation)
    # What is asked first is quick: torch's own takes 400 us for maps of some megabytes, and each question a few.
    torchs = activation == IDENTITY and x.is_contiguous() and _torchs_is_as_quick(x)
    if not torchs and _takes(x, weight, bias):
        result: Tensor = _Norm.apply(x, weight, bias, eps, activation)
        return result
    y = torch.instance_norm(x, weight, bias, None, None, True, 0.0, eps, torch.backends.cudnn.enabled)
    if len(x) == 1 and y.requires_grad:  # of whose gradient in channels_last torch 2.13 makes something else
        y.register_hook(_contiguous)
    return activation(y)


def _takes(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Say whether `_Norm` takes these: contiguous maps, channels_last ones, or slices of their channels."""
    dtypes = x.dtype, torch.promote_types(x.dtype, torch.float32)
    return (
        x.dtype in DTYPES
        and all(p is None or (p.dtype in dtypes and p.device == x.device) for p in (weight, bias))
        and x.dim() >= 3
        and x.numel() > 0
        and (x.is_contiguous() or line_stride(x) is not None)
    )


def _torchs_is_as_quick(x: Tensor) -> bool:
    """Say whether torch's own is, of contiguous maps: it has vector instructions for 16 bits alone."""
    return (x.element_size() <= 2 and x.stride(1) > FEW_POSITIONS) or not cpp.take(x)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, activation: Activation
    ) -> Tensor:
        ctx.form, ctx.options = cpp if cpp.take(x) else aten, (eps, activation)
        y, mean, rstd = ctx.form.forward(x, weight, bias, eps, activation.number, activation.slope)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        eps, activation = ctx.options
        if double_backward.asked_for():
            definition = partial(_defined, eps, activation)
            return *double_backward.by_definition(definition, (x, weight, bias), grad), None, None
        grad = _lying_as(x, grad.to(x.dtype))
        how = activation.number, activation.slope
        dx, sum_g, sum_along = ctx.form.backward(grad, x, mean, rstd, weight, bias, *how)
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        to_weight = sum_along.sum(0).to(weight.dtype) if needs_weight else None
        return dx, to_weight, sum_g.sum(0).to(bias.dtype) if needs_bias else None, None, None


def _defined(eps: float, activation: Activation, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return reference.instance_norm(x, eps, weight, bias, activation)


def _lying_as(x: Tensor, grad: Tensor) -> Tensor:
    """A gradient as loops over x read it."""
    if x.is_contiguous():
        return grad.contiguous()
    return grad if line_stride(grad) is not None else empty_channels_last(x).copy_(grad)


def _contiguous(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.contiguous()
