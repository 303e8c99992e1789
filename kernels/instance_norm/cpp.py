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
    "-> (Tensor, Tensor)"
)
def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, activation: int, slope: float
) -> tuple[Tensor, Tensor]:
    """Result; of each map, mean of the differences from the first position, and 1 / deviation: (2, N, C)."""
    statistics = _empty_statistics(x)
    parameters = _parameters(weight, bias, statistics)
    addresses = [*_halves(statistics), *map(_address, parameters)]
    if x.is_contiguous():
        y = torch.empty_like(x)
        LOOPS.run("rows_forward", (x, y), *addresses, activation, slope, eps)
    else:
        y = empty_channels_last(x)
        LOOPS.run("forward", (x, y), *addresses, activation, slope, eps)
    return y, statistics


@cpp_op(
    "instance_norm_maps_backward(Tensor grad, Tensor x, Tensor statistics, Tensor? weight, Tensor? bias, "
    "int activation, float slope) -> (Tensor, Tensor)"
)
def backward(
    grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, activation: int,
    slope: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Gradient of x; of each map, the sum of the gradients of the result, and that of their products with x_hat.

    The gradient of the result lies as x does.
    """
    sums = torch.empty_like(statistics)
    parameters = _parameters(weight, bias, statistics)
    addresses = [*_halves(statistics), *map(_address, parameters), *_halves(sums)]
    if x.is_contiguous():
        dx = torch.empty_like(x)
        LOOPS.run("rows_backward", (grad, x, dx), *addresses, activation, slope)
    else:
        dx = empty_channels_last(x)
        LOOPS.run("backward", (grad, x, dx), *addresses, activation, slope)
    return dx, sums


def _empty_statistics(x: Tensor) -> Tensor:
    n, channels = x.shape[:2]
    return torch.empty(2, n, channels, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def _parameters(weight: Tensor | None, bias: Tensor | None, statistics: Tensor) -> list[Tensor | None]:
    return [None if p is None else p.to(statistics.dtype).contiguous() for p in (weight, bias)]


def _halves(statistics: Tensor) -> tuple[int, int]:
    """Addresses of the first and second of each map."""
    address = statistics.data_ptr()
    return address, address + statistics.stride(0) * statistics.element_size()


def _address(parameter: Tensor | None) -> int | None:
    return None if parameter is None else parameter.data_ptr()
