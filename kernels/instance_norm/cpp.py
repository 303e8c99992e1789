"""Instance norm of channels_last maps as C++ loops, registered as operations of torch's."""

from ctypes import c_double, c_int, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.cpp.lines import empty_channels_last

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "forward": (2, [*[c_void_p] * 4, c_int, c_double]),
        "backward": (3, [*[c_void_p] * 6, c_int]),
    },
)


@cpp_op("instance_norm_maps(Tensor x, Tensor? weight, Tensor? bias, float eps, bool relu) -> (Tensor, Tensor, Tensor)")
def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Result; mean of the differences from the first position; 1 / deviations."""
    y = empty_channels_last(x)
    mean, rstd = _empty_statistics(x)
    parameters = [None if p is None else p.to(mean.dtype).contiguous() for p in (weight, bias)]
    LOOPS.run("forward", (x, y), mean.data_ptr(), rstd.data_ptr(), *map(_address, parameters), relu, eps)
    return y, mean, rstd


@cpp_op(
    "instance_norm_maps_backward(Tensor grad, Tensor x, Tensor mean, Tensor rstd, Tensor? weight, Tensor? bias, "
    "bool relu) -> (Tensor, Tensor, Tensor)"
)
def backward(
    grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of x; of each map, the sum of the gradients of the result, and that of their products with x_hat."""
    dx = empty_channels_last(x)
    sum_g, sum_along = _empty_statistics(x)
    parameters = [None if p is None else p.to(mean.dtype).contiguous() for p in (weight, bias)]
    addresses = (mean.data_ptr(), rstd.data_ptr(), *map(_address, parameters), sum_g.data_ptr(), sum_along.data_ptr())
    LOOPS.run("backward", (grad, x, dx), *addresses, relu)
    return dx, sum_g, sum_along


def _empty_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape[:2], dtype=dtype), x.new_empty(x.shape[:2], dtype=dtype)


def _address(parameter: Tensor | None) -> int | None:
    return None if parameter is None else parameter.data_ptr()
