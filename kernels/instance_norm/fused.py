"""Instance norm in the memory layout of its input, by C++ loops if there is a compiler, else by operations of torch's.

PyTorch's own copies channels_last maps to contiguous ones, leaves them there, and computes a normalized value as the
difference of two large numbers when a map lies far from zero. Ours reads differences from the map's first position.
It keeps x and each map's statistics for the backward and not the result, which others may change in place.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from math import prod
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.activation import IDENTITY, Activation
from lorbms_fast.kernels._common.cpp.lines import (
    DTYPES,
    empty_channels_last,
    known_line_stride,
    lie_in_rows,
    line_stride,
    plain,
)
from lorbms_fast.kernels._common.of_torch import is_wrapped, soon_applied
from lorbms_fast.kernels.instance_norm import aten, cpp, reference

FEW_VALUES = 1 << 15
"""Of all contiguous maps, below which torch's own norm is quicker than loops, whose call takes longer.

A quarter of the values without gradients, where the call is shorter; loops are quicker for any there, where torch
repeats scale and shift for each sample. With gradients so they are for few values where nothing but the norm runs; in
a net, whose other layers leave caches to none of Python's code, they take as long or longer.
"""
MANY_MAPS, MANY_POSITIONS = 1024, 1024
"""Of 16 bits: at least so many maps of at most so many positions, of which torch's own begins each slowly."""
MAPS_BESIDE, POSITIONS_BESIDE = 128, 128
"""The same of maps that loops go through side by side."""


def instance_norm(
    x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None, activation: Activation = IDENTITY
) -> Tensor:
    """(N, C, *positions) -> the same, in x's memory layout; documented in `reference.py`."""
    if torch.compiler.is_compiling():  # whose compiler fuses the definition; torch's kernel would leave the layout
        return reference.instance_norm(x, eps, weight, bias, activation)
    trains = torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    )
    form = _form(x, weight, bias, activation, trains)
    if not isinstance(form, ModuleType):
        y = form(x, eps, weight, bias)
        if activation == IDENTITY:
            return y
        return activation(y) if trains else aten.activated(y, activation)
    if not trains:  # a call of a function of autograd's takes as long as a small map
        y, _ = form.forward(x, weight, bias, eps, activation.number, activation.slope)
        return y
    result: Tensor = (_apply if form is cpp else _Norm.apply)(x, weight, bias, (eps, activation, form))
    return result


def is_torchs(x: Tensor, weight: Tensor | None) -> bool:
    """Is torch's own norm the quickest, in training? Layers ask first, as it takes no longer than a few questions."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    if not (x.requires_grad or (weight is not None and weight.requires_grad)):
        return False
    shape = x.shape
    if len(shape) < 3 or shape[0] < 2 or x.numel() <= shape[0] * shape[1]:  # of one sample see `_instance_norm`
        return False
    return plain(x) and _quickest(shape, x.stride(), x.dtype, True, True, weight is not None) is _instance_norm


def torchs_own(x: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Torch's own norm."""
    cudnn = x.is_cuda and torch.backends.cudnn.enabled
    return torch.instance_norm(x, weight, bias, None, None, True, 0.0, eps, cudnn)


def _form(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, activation: Activation, trains: bool
) -> ModuleType | Callable[..., Tensor]:
    """What runs on these: the loops, operations of torch's, or a norm of its own."""
    alone, in_memory = activation == IDENTITY, plain(x)
    if in_memory:
        form = _quickest(x.shape, x.stride(), x.dtype, alone, trains, weight is not None)
        if form is not cpp:  # asked first, as a small map takes as long as the questions below
            return form
    if not ((weight is None or _fits(weight, x)) and (bias is None or _fits(bias, x))):
        return _instance_norm
    if weight is not None and bias is not None and weight.dtype is not bias.dtype:  # which torch refuses
        return _instance_norm
    if in_memory and cpp.LOOPS.built():
        return cpp
    if x.dtype not in DTYPES or x.dim() < 3 or x.numel() == 0:
        return _instance_norm
    if x.is_contiguous():
        return _instance_norm if alone else aten
    return _instance_norm if line_stride(x) is None else aten


def _fits(parameter: Tensor, x: Tensor) -> bool:
    if parameter.shape != x.shape[1:2] or is_wrapped(parameter):
        return False
    if parameter.dtype is not x.dtype and parameter.dtype != torch.promote_types(x.dtype, torch.float32):
        return False
    return (parameter.is_cpu and x.is_cpu) or parameter.device == x.device


@lru_cache(4096)
def _quickest(
    shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, alone: bool, trains: bool, scales: bool
) -> ModuleType | Callable[..., Tensor]:
    """What is the quickest on a CPU: asked once, as small maps take as long as the questions."""
    values, maps = prod(shape), prod(shape[:2])
    if len(shape) < 3 or not values or dtype not in DTYPES:
        return _instance_norm
    if not lie_in_rows(shape, strides):
        return _instance_norm if known_line_stride(shape, strides) is None else cpp
    if trains and not alone:  # torch keeps two tensors of a norm and an activation
        return cpp
    if scales and shape[0] > 1 and not trains:
        return cpp
    if dtype not in (torch.bfloat16, torch.float16):
        return _instance_norm if values < (FEW_VALUES if trains else FEW_VALUES // 4) else cpp
    if maps >= MAPS_BESIDE and values <= POSITIONS_BESIDE * maps:
        return cpp
    few = maps < MANY_MAPS  # torch's own has vector instructions for 16 bits alone
    if alone:
        return _instance_norm if few or values > MANY_POSITIONS * maps else cpp
    return _instance_norm if few and values < FEW_VALUES // 2 else cpp


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:
        eps, activation, form = ctx.how = how
        y, statistics = form.forward(x, weight, bias, eps, activation.number, activation.slope)
        ctx.save_for_backward(x, weight, bias, statistics)  # and not the result
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return gradients(ctx, grad, _defined, lying_as)


_apply = soon_applied(_Norm)


def gradients(
    ctx: Any, grad: Tensor, definition: Callable[..., Tensor], lying: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients of maps, scale, shift and nothing, of a norm that kept those, and statistics, with what computes it.

    The form reads them as `lying` returns them; those that are to be differentiated are the definition's.
    """
    x, weight, bias, statistics = ctx.saved_tensors
    eps, activation, form = ctx.how
    if double_backward.asked_for(grad):
        return *double_backward.by_definition(partial(definition, eps, activation), (x, weight, bias), grad), None
    return *form.backward(lying(x, grad), x, statistics, weight, bias, activation.number, activation.slope), None


def _defined(eps: float, activation: Activation, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return reference.instance_norm(x, eps, weight, bias, activation)


def lying_as(x: Tensor, grad: Tensor) -> Tensor:
    """Return a gradient as loops over x read it."""
    if grad.stride() == x.stride() and grad.dtype == x.dtype and not grad.is_neg():
        return grad
    grad = grad.to(x.dtype).resolve_neg()
    if x.is_contiguous():
        return grad.contiguous()
    return empty_channels_last(x).copy_(grad) if line_stride(grad) is None else grad


def _instance_norm(x: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Torch's own norm; of one sample its batch norm, as the gradient of 2.13's is wrong there in channels_last."""
    if x.dim() < 3 or x.shape[0] != 1:
        return torchs_own(x, eps, weight, bias)
    cudnn = x.is_cuda and torch.backends.cudnn.enabled
    y: Tensor = torch.batch_norm(x, weight, bias, None, None, True, 0.0, eps, cudnn)
    with_readable_gradients(y)
    return y


def with_readable_gradients(y: Tensor) -> None:
    """Let gradients of one sample that torch's batch norm gave lie as torch reads them.

    2.13's misreads those whose channels are neighbours and whose stride of the sample is not its size, as it is behind
    an `unsqueeze`: of an image without a batch that became (H, W, C).
    """
    if y.requires_grad:
        y.register_hook(_readable)


def _readable(grad: Tensor | None) -> Tensor | None:
    if grad is None or grad.is_contiguous() or grad.stride(0) == grad.numel():
        return grad
    return grad if known_line_stride(grad.shape, grad.stride()) is None else grad.contiguous()
