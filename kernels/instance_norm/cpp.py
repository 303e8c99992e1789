"""Instance norm as C++ loops over channels_last or contiguous maps, registered as operations of torch's."""

from collections.abc import Sequence
from ctypes import c_double, c_int, c_void_p
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.cpp.lines import (
    DTYPES,
    channels_last_strides,
    empty_channels_last,
    known_line_stride,
    lie_in_rows,
)

_FORWARD = (2, [*[c_void_p] * 3, c_int, c_double, c_double, c_int, *[c_void_p] * 2, c_double])
_BACKWARD = (3, [*[c_void_p] * 5, c_int, c_double, c_int])
LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {"forward": _FORWARD, "backward": _BACKWARD, "rows_forward": _FORWARD, "rows_backward": _BACKWARD},
    packed=True,
)


def take(*maps: Tensor) -> bool:
    """Can loops go through maps like these?"""
    return LOOPS.take_rows(*maps) if maps[0].is_contiguous() else LOOPS.take(*maps)


@cpp_op(
    "instance_norm_maps(Tensor x, Tensor? weight, Tensor? bias, float eps, int activation, float slope) "
    "-> (Tensor, Tensor)"
)
def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, activation: int, slope: float
) -> tuple[Tensor, Tensor]:
    """Result; of each map, mean of the differences from the first position, and 1 / deviation: (2, N, C)."""
    return _forward(x, weight, bias, eps, activation, slope, False)


@cpp_op(
    "batch_norm_maps(Tensor x, Tensor(a!)[] running, Tensor? weight, Tensor? bias, float momentum, float eps, "
    "int activation, float slope) -> (Tensor, Tensor)"
)
def batch_forward(
    x: Tensor, running: Sequence[Tensor], weight: Tensor | None, bias: Tensor | None, momentum: float, eps: float,
    activation: int, slope: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same with the maps of all samples as one, (2, 1, C); moves running averages, of mean and variance, if any.

    Lines of all samples are evenly spaced.
    """
    exact = known(x.shape, x.stride(), x.dtype).exact
    moved = [average.to(exact).contiguous() for average in running]
    mean, var = [average.data_ptr() for average in moved] or (0, 0)
    found = _forward(x, weight, bias, eps, activation, slope, True, mean, var, momentum)
    for average, value in zip(running, moved, strict=True):
        if value is not average:
            average.copy_(value)
    return found


def _forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, activation: int, slope: float, batch: bool,
    running_mean: int = 0, running_var: int = 0, momentum: float = 0.0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    lie = known(x.shape, x.stride(), x.dtype)
    samples, _, channels = lie.sizes
    statistics = torch.empty(2, 1 if batch else samples, channels, dtype=torch.float64, device=x.device)
    y = torch.empty_like(x) if lie.dense else empty_channels_last(x)
    weight, bias = _exact(weight, lie.exact), _exact(bias, lie.exact)
    LOOPS.function("rows_forward" if lie.rows else "forward")(
        lie.dtype, torch.get_num_threads(), *lie.sizes, x.data_ptr(), *lie.strides, y.data_ptr(), *lie.of_new,
        statistics.data_ptr(), _address(weight), _address(bias), activation, slope, eps, batch and samples > 1,
        running_mean, running_var, momentum,
    )  # fmt: skip
    return y, statistics


@cpp_op(
    "instance_norm_maps_backward(Tensor grad, Tensor x, Tensor statistics, Tensor? weight, Tensor? bias, "
    "int activation, float slope) -> (Tensor, Tensor, Tensor)"
)
def backward(
    grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, activation: int,
    slope: float,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of x, scale and shift, in their dtypes.

    The gradient of the result lies as x does. Of a batch's statistics it is that of the batch.
    """
    lie = known(x.shape, x.stride(), x.dtype)
    to_scale = None if weight is None else torch.empty(weight.shape, dtype=lie.exact, device=x.device)
    to_shift = None if bias is None else torch.empty(bias.shape, dtype=lie.exact, device=x.device)
    dx = torch.empty_like(x) if lie.dense else empty_channels_last(x)
    exact_weight, exact_bias = _exact(weight, lie.exact), _exact(bias, lie.exact)
    found = _exact(statistics, torch.float64)  # hooks on saved tensors may have rounded them
    of_grad = lie.strides if grad.stride() == x.stride() else known(grad.shape, grad.stride(), grad.dtype).strides
    LOOPS.function("rows_backward" if lie.rows else "backward")(
        lie.dtype, torch.get_num_threads(), *lie.sizes, grad.data_ptr(), *of_grad, x.data_ptr(), *lie.strides,
        dx.data_ptr(), *lie.of_new, _address(found), _address(exact_weight), _address(exact_bias),
        _address(to_shift), _address(to_scale), activation, slope, statistics.shape[1] < lie.sizes[0],
    )  # fmt: skip
    return dx, _as(weight, to_scale), _as(bias, to_shift)


class Lie(NamedTuple):
    """How maps lie that loops go through, as C++ reads it."""

    rows: bool
    """Contiguous, a row of positions after another."""
    dense: bool
    """A new tensor like them lies as loops write it."""
    dtype: int
    exact: torch.dtype
    """What is computed in."""
    sizes: tuple[int, int, int]
    """Samples, positions, channels."""
    strides: tuple[int, int]
    """From a sample to the next, and from a line of channels to the next."""
    of_new: tuple[int, int]
    """Those of new maps."""


@lru_cache(4096)
def known(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype) -> Lie:
    """Find out once how maps of a shape lie: small ones take as long as the questions."""
    n, channels, *positions = shape
    size, exact = prod(positions), torch.float64 if dtype == torch.float64 else torch.float32
    rows, line = lie_in_rows(shape, strides), known_line_stride(shape, strides) or 0
    dense = rows or strides == channels_last_strides(shape)
    return Lie(rows, dense, DTYPES[dtype], exact, (n, size, channels), (strides[0], line), (channels * size, channels))


def _exact(parameter: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if parameter is None or (parameter.dtype == dtype and parameter.is_contiguous()):
        return parameter
    return parameter.to(dtype).contiguous()


def _as(parameter: Tensor | None, grad: Tensor | None) -> Tensor | None:
    if parameter is None or grad is None or grad.dtype == parameter.dtype:
        return grad
    return grad.to(parameter.dtype)


def _address(parameter: Tensor | None) -> int:
    return 0 if parameter is None else parameter.data_ptr()
