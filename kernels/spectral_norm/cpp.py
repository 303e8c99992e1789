"""Spectral norms as C++ loops over all weights, registered as operations of torch's. Documented at `fused`."""

from collections.abc import Sequence
from ctypes import c_double, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op, plain
from lorbms_fast.kernels._common.cpp.lines import DTYPES

_VECTORS = [c_void_p] * 4
LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "power_iteration": (0, [*_VECTORS, c_int, c_int64, c_double, c_int]),
        "divide": (0, _VECTORS),
        "divide_backward": (0, _VECTORS),
    },
)


def take(weights: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Can the loops go through weights like these, and others beside them, on this machine?"""
    if torch.compiler.is_compiling():
        return False
    dtype = weights[0].dtype
    alike = dtype in (torch.float32, torch.float64) and all(t.dtype == dtype and plain(t) for t in (*weights, *others))
    return alike and all(map(_in_rows, weights)) and LOOPS.built()


def _in_rows(weight: Tensor) -> bool:
    """Does a weight (O, ...) lie as a matrix, row after row?"""
    return weight.is_contiguous() or (weight.dim() > 2 and weight.movedim(1, -1).is_contiguous())


@cpp_op(
    "spectral_norm_iteration(Tensor[] weights, Tensor[] first, bool u_first, int iterations, float eps, bool added)"
    " -> (Tensor, Tensor, Tensor)"
)
def power_iteration(
    weights: Sequence[Tensor], first: Sequence[Tensor], u_first: bool, iterations: int, eps: float, added: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """All u, all v, and every sigma."""
    rows = sum(map(len, weights))
    columns = sum(W.numel() // len(W) for W in weights)
    made = tuple(weights[0].new_empty(size) for size in (rows, columns, len(weights)))
    _run("power_iteration", weights, [a.contiguous() for a in first], (), made, u_first, iterations, eps, added)
    return made  # type: ignore[return-value]


@cpp_op("spectral_norm_divide(Tensor[] weights, Tensor u, Tensor v, Tensor sigma) -> Tensor[]")
def divide(weights: Sequence[Tensor], u: Tensor, v: Tensor, sigma: Tensor) -> list[Tensor]:
    """Every quotient, which lies as its weight."""
    quotients = [torch.empty_like(W) for W in weights]
    _run("divide", weights, (), quotients, (u, v, sigma))
    return quotients


@cpp_op("spectral_norm_divide_backward(Tensor[] grads, Tensor[] weights, Tensor u, Tensor v, Tensor sigma) -> Tensor[]")
def divide_backward(
    grads: Sequence[Tensor], weights: Sequence[Tensor], u: Tensor, v: Tensor, sigma: Tensor
) -> list[Tensor]:
    """The weights' gradients, which lie as they."""
    result = [torch.empty_like(W) for W in weights]
    lying = [
        g if g.stride() == W.stride() else torch.empty_like(W).copy_(g) for g, W in zip(grads, weights, strict=True)
    ]
    _run("divide_backward", weights, lying, result, (u, v, sigma))
    return result


def _run(
    name: str, weights: Sequence[Tensor], beside: Sequence[Tensor], to: Sequence[Tensor], vectors: Sequence[Tensor],
    *others: Any,
) -> None:  # fmt: skip
    table: list[int] = []
    for i, W in enumerate(weights):
        table += len(W), W.numel() // len(W), W.data_ptr()
        table += (of[i].data_ptr() if of else 0 for of in (beside, to))
    head = DTYPES[weights[0].dtype], torch.get_num_threads(), len(weights), 0, 0
    where = [vector.data_ptr() for vector in vectors]
    LOOPS.function(name)(*head, (c_int64 * len(table))(*table), *where, *others)
