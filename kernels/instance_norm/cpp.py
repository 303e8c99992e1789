"""Instance norm as C++ loops over channels_last or contiguous maps, registered as operations of torch's."""

from ctypes import c_double, c_int, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.cpp.lines import empty_channels_last

_FORWARD = (2, [*[c_void_p] * 4, c_int, c_double, c_double])
_BACKWARD = (3, [*[c_void_p] * 6, c_int, c_double])
LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {"forward": _FORWARD, "backward": _BACKWARD, "rows_forward": _FORWARD, "rows_backward": _BACKWARD},
)


def take(*maps: Tensor) -> bool:
    """Can loops go through maps like these?"""
    return LOOPS.take_rows(*maps) if maps[0].is_contiguous() else LOOPS.take(*maps)


@cpp_op(
    "instance_norm_maps(Tensor x, Tensor? weight, Tensor? bias, float eps, int activation, float slope) "
    "-> (Tensor, Tensor, Tensor)"
)
def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, activation: int, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Result; mean of the differences from the first position; 1 / deviations."""
    y, prefix = _empty_maps(x)
    mean, rstd = _empty_statistics(x)
    parameters = [None if p is None else p.to(mean.dtype).contiguous() for p in (weight, bias)]
    addresses = mean.data_ptr(), rstd.data_ptr(), *map(_address, parameters)
    LOOPS.run(f"{prefix}forward", (x, y), *addresses, activation, slope, eps)
    return y, mean, rstd


@cpp_op(
    "instance_norm_maps_backward(Tensor grad, Tensor x, Tensor mean, Tensor rstd, Tensor? weight, Tensor? bias, "
    "int activation, float slope) -> (Tensor, Tensor, Tensor)"
)
def backward(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None, activation: int,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradient of x; of each map, the sum of the gradients of the result, and that of their products with x_hat.

    The gradient of the result lies as x does.
    """
    dx, prefix = _empty_maps(x)
    sum_g, sum_along = _empty_statistics(x)
    parameters = [None if p is None else p.to(mean.dtype).contiguous() for p in (weight, bias)]
    addresses = (mean.data_ptr(), rstd.data_ptr(), *map(_address, parameters), sum_g.data_ptr(), sum_along.data_ptr())
    LOOPS.run(f"{prefix}backward", (grad, x, dx), *addresses, activation, slope)
    return dx, sum_g, sum_along


def _empty_maps(x: Tensor) -> tuple[Tensor, str]:
    """New maps that lie as x does, and what the names of the loops for them begin with."""
    return (torch.empty_like(x), "rows_") if x.is_contiguous() else (empty_channels_last(x), "")


def _empty_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    first, second = torch.empty((2, *x.shape[:2]), dtype=dtype).unbind()
    return first, second


def _address(parameter: Tensor | None) -> int | None:
    return None if parameter is None else parameter.data_ptr()
