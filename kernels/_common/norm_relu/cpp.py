"""The passes as C++ loops, registered as operations of torch's. Documented at the package."""

from ctypes import c_double, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "normalize": (2, [c_void_p, c_double]),
        "normalize_backward": (3, [c_void_p]),
        "relu_normalize_backward": (4, [c_void_p]),
        "relu_backward": (3, []),
        "add": (2, []),
        "add_relu_backward": (3, []),
    },
)


@cpp_op("normalize_maps(Tensor x, Tensor(a!) x_hat, float eps) -> Tensor")
def normalize(x: Tensor, x_hat: Tensor, eps: float) -> Tensor:
    """1 / deviations."""
    rstd = x.new_empty((*x.shape[:2], 1, 1), dtype=torch.promote_types(x.dtype, torch.float32))
    LOOPS.run("normalize", (x, x_hat), rstd.data_ptr(), eps)
    return rstd


@cpp_op("normalize_maps_backward(Tensor grad, Tensor x_hat, Tensor rstd, Tensor(a!) out) -> ()")
def normalize_backward(grad: Tensor, x_hat: Tensor, rstd: Tensor, out: Tensor) -> None:
    """Write into `out`."""
    LOOPS.run("normalize_backward", (grad, x_hat, out), rstd.data_ptr())


@cpp_op("relu_normalize_maps_backward(Tensor grad, Tensor other, Tensor x_hat, Tensor rstd, Tensor(a!) out) -> ()")
def relu_normalize_backward(grad: Tensor, other: Tensor, x_hat: Tensor, rstd: Tensor, out: Tensor) -> None:
    """Write into `out`."""
    LOOPS.run("relu_normalize_backward", (grad, other, x_hat, out), rstd.data_ptr())


@cpp_op("relu_maps_backward(Tensor grad, Tensor x, Tensor(a!) out) -> ()")
def relu_backward(grad: Tensor, x: Tensor, out: Tensor) -> None:
    """Write into `out`."""
    LOOPS.run("relu_backward", (grad, x, out))


@cpp_op("add_maps(Tensor(a!) out, Tensor values) -> ()")
def add_(out: Tensor, values: Tensor) -> None:
    """Add to `out`."""
    LOOPS.run("add", (values, out))


@cpp_op("add_relu_maps_backward(Tensor(a!) out, Tensor grad, Tensor x) -> ()")
def add_relu_backward_(out: Tensor, grad: Tensor, x: Tensor) -> None:
    """Add to `out`."""
    LOOPS.run("add_relu_backward", (grad, x, out))
