"""Fused elementwise and normalization steps between a block's convolutions: C++ if there is a compiler, else torch.

Maps are (N, C, H, W) of one shape and dtype in a call, usually some channels of a channels_last stack. What is written
is a given tensor, which may be one of those that are read. Outside the C++ loops' case (see `cpp`) operations of
torch's do the same. There is no autograd here.
"""

from types import ModuleType

import torch
from torch import Tensor

from lorbms_fast.kernels._common.norm_relu import cpp, fused


def normalize(x: Tensor, x_hat: Tensor, eps: float) -> Tensor:
    """`x_hat = (x - mean) / sqrt(var + eps)` of every map; returns 1 / deviations, (N, C, 1, 1).

    Statistics are float32 for 16-bit maps, and safe for maps that lie far from zero. The torch form takes maps of any
    number of dimensions.
    """
    return _form(x, x_hat).normalize(x, x_hat, eps)


def normalize_backward(grad: Tensor, x_hat: Tensor, rstd: Tensor, out: Tensor) -> Tensor:
    """`out = rstd (g - mean(g) - x_hat mean(g x_hat))`: x's gradient from that of its normalized maps; returns out."""
    _form(grad, x_hat, out).normalize_backward(grad, x_hat, rstd, out)
    return out


def relu_normalize_backward(grad: Tensor, other: Tensor, x_hat: Tensor, rstd: Tensor, out: Tensor) -> Tensor:
    """x's gradient if the normalized maps went through ReLU and two readers sent gradients back; returns out."""
    _form(grad, other, x_hat, out).relu_normalize_backward(grad, other, x_hat, rstd, out)
    return out


def relu_backward(grad: Tensor, x: Tensor, out: Tensor | None = None) -> Tensor:
    """x's gradient from that of ReLU(x), which may be given instead of x; if not into `out`, then without gaps."""
    result = torch.empty_like(grad, memory_format=torch.channels_last) if out is None else out
    _form(grad, x, result).relu_backward(grad, x, result)
    return result


def add_(out: Tensor, values: Tensor) -> None:
    """`out += values`."""
    _form(out, values).add_(out, values)


def add_relu_backward_(out: Tensor, grad: Tensor, x: Tensor) -> None:
    """`out += relu_backward(grad, x)`."""
    _form(out, grad, x).add_relu_backward_(out, grad, x)


def _form(*maps: Tensor) -> ModuleType:
    return cpp if cpp.LOOPS.take(*maps) else fused
