"""Norms as C++ loops. Documented in `norms.py`.

They are called straight, and not as operations of torch's: some hundred times a step, for matrices that may be small.
"""

from ctypes import c_int, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import NORM, Loops, address
from lorbms_fast.kernels._common.cpp.lines import DTYPES
from lorbms_fast.kernels._common.cpp.vectors import vectors_multiply
from lorbms_fast.kernels.densenet_block.norms import Norm
from lorbms_fast.kernels.densenet_block.reference import Statistics

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "statistics": (1, [c_void_p] * 2),
        "norm_relu": (2, NORM),
        "sums": (3, [*NORM, *[c_void_p] * 2]),
        "norm_relu_backward": (2, [*NORM, *[c_void_p] * 2, c_int]),
        "less_line": (3, [*[c_void_p] * 4, c_int64]),
        "add_line": (0, [*NORM, *[c_void_p] * 4, c_int]),
        "convolution": (1, [*NORM, c_void_p, c_int64, *[c_void_p] * 3]),
        "convolution_backward": (2, [*NORM, *[c_void_p] * 2, c_int64, *[c_void_p] * 3]),
    },
)


def take(matrix: Tensor) -> bool:
    """Can the loops go through matrices like this?"""
    return LOOPS.take(matrix.t().unsqueeze(0))


@cache
def multiplies(dtype: torch.dtype, B: int) -> bool:
    """Does `convolution` compute it for a bottleneck of B maps, of which bfloat16 comes in pairs?"""
    return vectors_multiply(dtype) and (dtype == torch.float32 or B % 2 == 0)


def convolution(x: Tensor, norm: Norm, W: Tensor, out: Tensor, of_out: Statistics | None) -> None:
    """Write into `out` and `of_out`; documented in `products.py`."""
    _run("convolution", (x,), *norm, _floats(W), len(W), out, *(of_out or (None, None)))


def convolution_backward(
    grad: Tensor, x: Tensor, norm: Norm, W: Tensor, wanted: bool, sum_g: Tensor, sum_along: Tensor, add_to: Tensor
) -> Tensor | None:
    """Add to the sums and to `add_to`; the gradient of W is float32."""
    to_W = W.new_empty(W.shape, dtype=torch.float32) if wanted else None
    _run("convolution_backward", (x, add_to), *norm, _floats(W), grad, len(W), to_W, sum_g, sum_along)
    return to_W


def _floats(W: Tensor) -> Tensor:
    """Rounded where it is read."""
    return W.to(torch.float32).contiguous()


def statistics(x: Tensor, mean: Tensor, var: Tensor) -> None:
    """Write into `mean` and `var`."""
    _run("statistics", (x,), mean, var)


def norm_relu(x: Tensor, norm: Norm, out: Tensor) -> None:
    """Write into `out`."""
    _run("norm_relu", (x, out), *norm)


def sums(grad: Tensor, x: Tensor, norm: Norm, sum_g: Tensor, sum_along: Tensor, add_to: Tensor) -> None:
    """Add to the sums, and to `add_to`."""
    _run("sums", (grad, x, add_to), *norm, sum_g, sum_along)


def norm_relu_backward_(grad: Tensor, x: Tensor, norm: Norm, sum_g: Tensor, sum_along: Tensor, of_batch: bool) -> None:
    """Change `grad`, and write into the sums."""
    _run("norm_relu_backward", (grad, x), *norm, sum_g, sum_along, of_batch)


def less_line(
    grad: Tensor, x: Tensor, mean: Tensor, constant: Tensor, slope: Tensor, out: Tensor, factors: Tensor | None = None
) -> None:
    """Write into `out`; factors are without gaps."""
    _run("less_line", (grad, x, out), mean, constant, slope, factors, 0 if factors is None else len(factors))


def add_line(
    rows: int, norm: Norm, sum_g: Tensor, sum_along: Tensor, constant: Tensor, slope: Tensor, of_batch: bool
) -> None:
    """Add to `constant` and `slope`, and change `sum_along`."""
    others = map(address, (*norm, sum_g, sum_along, constant, slope))
    LOOPS.function("add_line")(DTYPES[sum_g.dtype], 1, 1, rows, len(sum_g), *others, of_batch)


def _run(name: str, matrices: tuple[Tensor, ...], *columns: Tensor | float | None) -> None:
    where = [number for matrix in matrices for number in (matrix.data_ptr(), 0, matrix.stride(0))]
    head = DTYPES[matrices[0].dtype], torch.get_num_threads(), 1, *matrices[0].shape
    LOOPS.function(name)(*head, *where, *map(address, columns))
