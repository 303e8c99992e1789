"""A pooled 1x1 convolution with its gradients as C++ loops, registered as operations of torch's; see `fused`."""

from ctypes import c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common import amx_conv
from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.cpp.lines import known_line_stride
from lorbms_fast.kernels._common.cpp.vectors import LANES, tiles_multiply
from lorbms_fast.kernels._common.layout import new_maps

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "forward": (3, [c_int64, c_int64, c_int, c_int, c_void_p, c_void_p]),
        "backward_input": (4, [c_int64, c_int64, c_int, c_int, c_void_p]),
        "backward_taps": (3, [c_int64, c_int64, c_int, c_int, c_void_p, c_void_p]),
    },
)


def take(x: Tensor, weight: Tensor) -> bool:
    """Are maps x convolved here by a weight? With AMX only by a compiler that knows its tiles."""
    return (
        weight.shape[1:] == (x.shape[1], 1, 1)  # if not, torch says so
        and x.dtype == weight.dtype in (torch.float32, torch.bfloat16)
        and (amx_conv.runs(x.dtype) or not tiles_multiply(x.dtype))
        and not (x.shape[1] % LANES or len(weight) % LANES)
        and weight.is_contiguous()
        and LOOPS.take(x)
    )


def take_back(x: Tensor, weight: Tensor, places: Tensor) -> bool:
    """Are gradients computed here, where the greatest were at these places?"""
    in_lines = known_line_stride(places.shape, places.stride()) is not None
    return places.dtype == torch.uint8 and in_lines and take(x, weight)


@cpp_op("pooled_conv_forward(Tensor x, Tensor weight, Tensor bias, bool relu) -> (Tensor, Tensor)", convolves=(0, 1))
def forward(x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    """The result of x, or of ReLU(x), and which of the four it was."""
    _, channels, height, width = x.shape
    y = new_maps(x, len(weight), height // 2, width // 2)
    places = torch.empty_like(y, dtype=torch.uint8)
    bias = bias.contiguous()
    by_tiles = amx_conv.runs(x.dtype)
    LOOPS.run("forward", (y, places, x), width, channels, relu, by_tiles, weight.data_ptr(), bias.data_ptr())
    return y, places


@cpp_op("pooled_conv_backward_input(Tensor grad, Tensor places, Tensor x, Tensor weight, bool relu) -> Tensor")
def backward_input(grad: Tensor, places: Tensor, x: Tensor, weight: Tensor, relu: bool) -> Tensor:
    """Gradient of x, where x was convolved, or ReLU(x)."""
    _, channels, height, width = x.shape
    to_x = new_maps(grad, channels, height, width)
    if height % 2 or width % 2:
        to_x.zero_()
    by_tiles = amx_conv.runs(x.dtype)
    LOOPS.run("backward_input", (grad, places, x, to_x), width, channels, relu, by_tiles, weight.data_ptr())
    return to_x


@cpp_op(
    "pooled_conv_backward_taps(Tensor grad, Tensor places, Tensor x, Tensor weight, bool relu) -> (Tensor, Tensor)",
    convolves=(0, 3),
)
def backward_taps(grad: Tensor, places: Tensor, x: Tensor, weight: Tensor, relu: bool) -> tuple[Tensor, Tensor]:
    """Gradients of the weight, where x was convolved, or ReLU(x), and of the bias."""
    to_weight, to_bias = torch.empty_like(weight), weight.new_empty(len(weight))
    by_tiles, of_results = amx_conv.runs(x.dtype), (to_weight.data_ptr(), to_bias.data_ptr())
    LOOPS.run("backward_taps", (grad, places, x), x.shape[3], x.shape[1], relu, by_tiles, *of_results)
    return to_weight, to_bias
