"""A fully connected layer with its gradients as C++ loops, registered as operations of torch's."""

from ctypes import c_void_p
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op, plain
from lorbms_fast.kernels._common.cpp.lines import DTYPES
from lorbms_fast.kernels._common.cpp.vectors import LANES, has_vectors

MOST = 256
"""Samples; what belongs to more of them leaves the cache."""
LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        name: (0, [c_void_p] * operands)
        for name, operands in (("forward", 4), ("backward_input", 3), ("backward_weight", 3))
    },
)


def take(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Is a layer of these computed here?"""
    return (
        not torch.compiler.is_compiling()
        and all(plain(t) and t.dtype == torch.float32 for t in (x, weight, bias))
        and x.dim() == 2
        and weight.shape == (*bias.shape, x.shape[1])  # if not, torch says so
        and len(x) <= MOST
        and not any(size % LANES for size in weight.shape)
        and weight.is_contiguous()
        and bias.is_contiguous()
        and has_vectors()
        and LOOPS.built()
    )


@cpp_op("linear(Tensor x, Tensor weight, Tensor bias) -> Tensor", convolves=(0, 1))
def forward(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The result."""
    y = x.new_empty(len(x), len(weight))
    _run("forward", weight, x.contiguous(), weight, bias, y)
    return y


@cpp_op("linear_backward_input(Tensor grad, Tensor weight) -> Tensor", convolves=(0, 1))
def backward_input(grad: Tensor, weight: Tensor) -> Tensor:
    """Gradient of x from that of the result, which is contiguous."""
    to_x = grad.new_empty(len(grad), weight.shape[1])
    _run("backward_input", weight, grad, weight, to_x)
    return to_x


@cpp_op("linear_backward_weight(Tensor grad, Tensor x) -> Tensor")
def backward_weight(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient of the weight."""
    to_weight = grad.new_empty(grad.shape[1], x.shape[1])
    _run("backward_weight", to_weight, grad, x.contiguous(), to_weight)
    return to_weight


def _run(name: str, weight: Tensor, first: Tensor, *others: Tensor) -> None:
    head = DTYPES[torch.float32], torch.get_num_threads(), len(first), weight.shape[1], weight.shape[0]
    LOOPS.function(name)(*head, *(t.data_ptr() for t in (first, *others)))
