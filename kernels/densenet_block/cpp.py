"""The passes as C++ loops, registered as operations of torch's. Documented in `passes.py`."""

from ctypes import c_void_p
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "statistics": (1, [c_void_p] * 2),
        "affine_relu": (2, [c_void_p] * 3),
        "relu_sums": (2, [c_void_p] * 5),
        "relu_sums_add": (3, [c_void_p] * 5),
        "relu_backward": (3, [c_void_p] * 5),
        "less_line": (3, [c_void_p] * 3),
    },
)


@cpp_op("densenet_statistics(Tensor x) -> (Tensor, Tensor)")
def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and biased variances."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    mean, var = x.new_empty(x.shape[1], dtype=dtype), x.new_empty(x.shape[1], dtype=dtype)
    _run("statistics", (x,), mean, var)
    return mean, var


@cpp_op("densenet_affine_relu(Tensor x, Tensor mean, Tensor scale, Tensor shift, Tensor(a!) out) -> ()")
def affine_relu(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    """Write into `out`."""
    _run("affine_relu", (x, out), mean, scale, shift)


@cpp_op(
    "densenet_relu_sums(Tensor grad, Tensor x, Tensor mean, Tensor scale, Tensor shift, Tensor(a!) sum_g, "
    "Tensor(b!) sum_along, Tensor(c!)? add_to) -> ()"
)
def relu_sums(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    shift: Tensor,
    sum_g: Tensor,
    sum_along: Tensor,
    add_to: Tensor | None,
) -> None:
    """Add to the sums, and to `add_to`."""
    if add_to is None:
        _run("relu_sums", (grad, x), mean, scale, shift, sum_g, sum_along)
    else:
        _run("relu_sums_add", (grad, x, add_to), mean, scale, shift, sum_g, sum_along)


@cpp_op(
    "densenet_relu_backward(Tensor grad, Tensor x, Tensor mean, Tensor scale, Tensor shift, Tensor constant, "
    "Tensor slope, Tensor(a!) out) -> ()"
)
def relu_backward(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, constant: Tensor, slope: Tensor, out: Tensor
) -> None:
    """Write into `out`."""
    _run("relu_backward", (grad, x, out), mean, scale, shift, constant, slope)


@cpp_op("densenet_less_line(Tensor grad, Tensor x, Tensor mean, Tensor constant, Tensor slope, Tensor(a!) out) -> ()")
def less_line(grad: Tensor, x: Tensor, mean: Tensor, constant: Tensor, slope: Tensor, out: Tensor) -> None:
    """Write into `out`."""
    _run("less_line", (grad, x, out), mean, constant, slope)


def take(matrix: Tensor) -> bool:
    """Can the loops go through matrices like this?"""
    return LOOPS.take(_maps(matrix))


def _run(name: str, matrices: tuple[Tensor, ...], *columns: Tensor) -> None:
    LOOPS.run(name, [_maps(matrix) for matrix in matrices], *(values.data_ptr() for values in columns))


def _maps(matrix: Tensor) -> Tensor:
    """(M, C) as the loops' (1, C, M)."""
    return matrix.t().unsqueeze(0)
