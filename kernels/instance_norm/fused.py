"""Instance norm in the memory layout of its input, by C++ loops if there is a compiler, else by operations of torch's.

PyTorch's own copies channels_last maps to contiguous ones, leaves them there, and computes a normalized value as the
difference of two large numbers when a map lies far from zero. Ours reads differences from the map's first position.
It keeps x and each map's statistics for the backward and not the result, which others may change in place.
"""

from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.activation import IDENTITY, Activation
from lorbms_fast.kernels._common.cpp.lines import DTYPES, empty_channels_last, line_stride
from lorbms_fast.kernels.instance_norm import aten, cpp, reference

FEW_VALUES, FEW_POSITIONS = 1 << 15, 128
"""Of all contiguous maps, and of one, below which torch's own norm is quicker than loops, whose call takes longer.

Half as many values without gradients, where the call is shorter.
"""
MANY_MAPS, MANY_POSITIONS = 1024, 1024
"""Of 16 bits: at least so many maps of at most so many positions, of which torch's own begins each slowly."""


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
    trains = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    form = _form(x, weight, bias, activation, trains)
    if form is None:
        y = _torchs(x, eps, weight, bias)
        if activation == IDENTITY:
            return y
        return activation(y) if trains else aten.activated(y, activation)
    if not trains:  # a call of a function of autograd's takes as long as a small map
        y, _ = form.forward(x, weight, bias, eps, activation.number, activation.slope)
        return y
    result: Tensor = _Norm.apply(x, weight, bias, eps, activation, form)
    return result


def _form(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, activation: Activation, trains: bool
) -> ModuleType | None:
    """What runs on these: the loops, operations of torch's, or, None, its own norm."""
    for p in (weight, bias):
        if p is not None and p.dtype != x.dtype and p.dtype != torch.promote_types(x.dtype, torch.float32):
            return None
        if p is not None and p.device != x.device:
            return None
    if x.dtype not in DTYPES or x.dim() < 3 or x.numel() == 0 or _torchs_is_quicker(x, activation, trains):
        return None
    if cpp.take(x):
        return cpp
    if x.is_contiguous():
        return None if activation == IDENTITY else aten
    return None if line_stride(x) is None else aten


def _torchs_is_quicker(x: Tensor, activation: Activation, trains: bool) -> bool:
    """Say whether torch's own norm is, of contiguous maps: it has vector instructions for 16 bits alone."""
    alone = activation == IDENTITY
    if not x.is_contiguous() or (trains and not alone):  # torch keeps two tensors of a norm and an activation
        return False
    maps, values, few_values = x.shape[0] * x.shape[1], x.numel(), FEW_VALUES if trains else FEW_VALUES // 2
    if x.element_size() > 2:
        return values < few_values or values < FEW_POSITIONS * maps
    few = maps < MANY_MAPS
    return few or values > MANY_POSITIONS * maps if alone else few and values < few_values


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, activation: Activation,
        form: ModuleType,
    ) -> Tensor:  # fmt: skip
        y, statistics = form.forward(x, weight, bias, eps, activation.number, activation.slope)
        ctx.save_for_backward(x, weight, bias, statistics)
        ctx.form, ctx.options = form, (eps, activation)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, statistics = ctx.saved_tensors
        eps, activation = ctx.options
        if double_backward.asked_for(grad):
            definition = partial(_defined, eps, activation)
            return *double_backward.by_definition(definition, (x, weight, bias), grad), None, None, None
        grad = _lying_as(x, grad.to(x.dtype).resolve_neg())
        how = activation.number, activation.slope
        dx, sums = ctx.form.backward(grad, x, statistics, weight, bias, *how)
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        to_weight = sums[1].sum(0).to(weight.dtype) if needs_weight else None
        return dx, to_weight, sums[0].sum(0).to(bias.dtype) if needs_bias else None, None, None, None


def _defined(eps: float, activation: Activation, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return reference.instance_norm(x, eps, weight, bias, activation)


def _lying_as(x: Tensor, grad: Tensor) -> Tensor:
    """A gradient as loops over x read it."""
    if x.is_contiguous():
        return grad.contiguous()
    return grad if line_stride(grad) is not None else empty_channels_last(x).copy_(grad)


def _torchs(x: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Torch's own norm; of one sample its batch norm, as the gradient of 2.13's is wrong there in channels_last."""
    one = len(x) == 1 and x.dim() >= 3
    norm = torch.batch_norm if one else torch.instance_norm
    return norm(x, weight, bias, None, None, True, 0.0, eps, x.is_cuda and torch.backends.cudnn.enabled)
