"""Batch norm and its activation in one: by C++ loops where they are faster, else by torch's own operations.

Torch goes through contiguous float32 maps without vector instructions, reads and writes all maps once more for the
activation, forward and backward, and keeps two tensors, the input and what the activation needs. The loops, those of
instance norms with the maps of all samples as one, keep the input and each map's statistics.
"""

from functools import lru_cache
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common.activation import Activation
from lorbms_fast.kernels._common.cpp.lines import DTYPES, empty_channels_last, known_line_stride, lie_in_rows, plain
from lorbms_fast.kernels._common.of_torch import soon_applied
from lorbms_fast.kernels.batch_norm import reference
from lorbms_fast.kernels.instance_norm import cpp
from lorbms_fast.kernels.instance_norm.fused import gradients, lying_as, with_readable_gradients

FEW_VALUES, FEW_OF_A_MAP = 1 << 16, 256
"""Below which contiguous maps in float32 take no longer with torch's own, whose call is shorter."""
NARROW, FEW_POSITIONS = 16, 512
"""Up to so many channels of channels_last maps loops are quicker, once each has so many positions for each of them."""
FEW, MUCH, MANY = 1 << 18, 1 << 19, 128
"""Of more channels, in 16 bits, loops are quicker between these numbers of values, and beyond with at most so many
channels; of at most twice as many from half the values on."""

_LYING_AS_RESULT = "relu", "leaky_relu"
"""Activations whose gradients torch lays as it reads them, however those of their results lie."""


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    activation: Activation,
    inplace: bool = False,
) -> Tensor:
    """(N, C, *positions) -> the same, in x's memory layout; documented in `reference.py`.

    `inplace`: as of `activated`.
    """
    running = [average for average in (running_mean, running_var) if average is not None]
    if len(running) == 1 or not _loops_are_faster(x, activation, weight, bias, *running):
        if x.numel() == x.shape[1]:
            F._verify_batch_size(x.size())  # type: ignore[attr-defined]
        alone = x.shape[0] == 1
        if alone and x.stride(0) != x.numel() and known_line_stride(x.shape, x.stride()) is not None:
            x = empty_channels_last(x).copy_(x)
        y = torchs_own(x, weight, bias, running_mean, running_var, momentum, eps)
        if alone and activation.name not in _LYING_AS_RESULT:  # what is called for it takes as long as a small map
            with_readable_gradients(y)
        return activated(y, activation, inplace)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
        y = _apply(x, weight, bias, (running, momentum, eps, activation))
        return y
    return cpp.batch_forward(x, running, weight, bias, momentum, eps, activation.number, activation.slope)[0]


def is_torchs(x: Tensor, activation: str) -> bool:
    """Is torch's own norm the quickest? Layers ask first, as it takes no longer than a few questions."""
    shape = x.shape
    if len(shape) < 3 or shape[0] < 2 or torch.compiler.is_compiling() or not plain(x):
        return False
    return not _faster(shape, x.stride(), x.dtype, activation, torch.get_num_threads())


def torchs_own(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None, running_var: Tensor | None,
    momentum: float, eps: float,
) -> Tensor:  # fmt: skip
    """Torch's own norm."""
    cudnn = torch.backends.cudnn.enabled
    return torch.batch_norm(x, weight, bias, running_mean, running_var, True, momentum, eps, cudnn)


def activated(y: Tensor, activation: Activation, inplace: bool) -> Tensor:
    """The activation of what a batch norm gave, in place where nobody can tell.

    LeakyReLU in place keeps its result for the backward: only where that was asked for (`inplace`) may what follows not
    change it. ReLU keeps it in any way.
    """
    if activation.name == "relu":
        return F.relu_(y)
    if activation.name == "leaky_relu" and (inplace or not y.requires_grad) and activation.slope >= 0:
        return F.leaky_relu_(y, activation.slope)
    return activation(y)


def _loops_are_faster(x: Tensor, activation: Activation, *others: Tensor | None) -> bool:
    if not _faster(x.shape, x.stride(), x.dtype, activation.name, torch.get_num_threads()) or not plain(x):
        return False
    given = [t for t in others if t is not None]
    fit = all(t.dtype == given[0].dtype and t.shape == x.shape[1:2] and plain(t) for t in given)
    known = not given or given[0].dtype in (x.dtype, torch.promote_types(x.dtype, torch.float32))
    return fit and known and cpp.LOOPS.built()


def go_through(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Say whether loops go through maps that lie so."""
    if len(shape) < 3 or dtype not in DTYPES or prod(shape) <= shape[1]:
        return False
    line = known_line_stride(shape, strides)
    evenly = line is not None and (shape[0] == 1 or strides[0] == prod(shape[2:]) * line)
    return evenly or lie_in_rows(shape, strides)


@lru_cache(4096)
def _faster(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, name: str, threads: int) -> bool:
    """Say whether loops are, asked once, as small maps take as long as the questions."""
    if name == "identity" or not go_through(shape, strides, dtype):
        return False
    values, channels, short = prod(shape), shape[1], dtype in (torch.bfloat16, torch.float16)
    if lie_in_rows(shape, strides):  # a map is one thread's
        balanced = channels % threads == 0 or channels > 4 * threads
        return balanced and not short and values >= FEW_VALUES and values >= FEW_OF_A_MAP * channels
    if channels <= NARROW:
        return values >= FEW_POSITIONS * channels * channels
    if not short or name not in ("relu", "leaky_relu"):
        return False
    return values >= (FEW // 2 if channels <= 2 * NARROW else FEW) and (values <= MUCH or channels <= MANY)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, how: tuple[Any, ...]) -> Tensor:
        running, momentum, eps, activation = how
        ctx.how = eps, activation, cpp
        y, statistics = cpp.batch_forward(x, running, weight, bias, momentum, eps, activation.number, activation.slope)
        ctx.save_for_backward(x, weight, bias, statistics)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return gradients(ctx, grad, _defined, _evenly)


_apply = soon_applied(_Norm)


def _evenly(x: Tensor, grad: Tensor) -> Tensor:
    """Return a gradient as loops over x read it, which go from a sample's lines on to the next one's."""
    grad = lying_as(x, grad)
    return grad if go_through(grad.shape, grad.stride(), grad.dtype) else empty_channels_last(x).copy_(grad)


def _defined(eps: float, activation: Activation, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return reference.batch_norm(x, weight, bias, None, None, 0.0, eps, activation)
