"""Gradients of a pooled 1x1 convolution as C++ loops, registered as operations of torch's. Documented at `fused`."""

from ctypes import c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.cpp.vectors import LANES, has_amx
from lorbms_fast.kernels._common.layout import is_channels_last, new_maps

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "backward_input": (3, [c_int64, c_int64, c_void_p]),
        "backward_taps": (3, [c_int64, c_int64, c_int, c_void_p, c_void_p]),
    },
)


def take(x: Tensor, weight: Tensor, places: Tensor) -> bool:
    """Are gradients computed here, of maps x, whose greatest were at these places, and of a weight?

    Not where AMX multiplies bfloat16 many times faster.
    """
    return (
        places.dtype == torch.uint8
        and x.dtype == weight.dtype in (torch.float32, torch.bfloat16)
        and not (x.dtype == torch.bfloat16 and has_amx())
        and not (x.shape[1] % LANES or len(weight) % LANES)
        and weight.is_contiguous()
        and is_channels_last(places)
        and LOOPS.take(x)
    )


@cpp_op("pooled_conv_backward_input(Tensor grad, Tensor places, Tensor weight, int height, int width) -> Tensor")
def backward_input(grad: Tensor, places: Tensor, weight: Tensor, height: int, width: int) -> Tensor:
    """Gradient of x."""
    to_x = new_maps(grad, weight.shape[1], height, width)
    if height % 2 or width % 2:
        to_x.zero_()
    LOOPS.run("backward_input", (grad, places, to_x), width, weight.shape[1], weight.data_ptr())
    return to_x


@cpp_op("pooled_conv_backward_taps(Tensor grad, Tensor places, Tensor x, Tensor weight, bool relu) -> (Tensor, Tensor)")
def backward_taps(grad: Tensor, places: Tensor, x: Tensor, weight: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    """Gradients of the weight, where x was convolved, or ReLU(x), and of the bias."""
    to_weight, to_bias = torch.empty_like(weight), weight.new_empty(len(weight))
    of_results = to_weight.data_ptr(), to_bias.data_ptr()
    LOOPS.run("backward_taps", (grad, places, x), x.shape[3], x.shape[1], relu, *of_results)
    return to_weight, to_bias
