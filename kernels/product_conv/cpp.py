"""Convolutions between small and large maps as C++ loops, operations of torch's. Documented at `fused`."""

from collections.abc import Sequence
from ctypes import addressof, c_int64, c_void_p
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, address, cpp_op
from lorbms_fast.kernels._common.cpp.vectors import LANES

_CONVOLUTION = [c_void_p, c_int64, *[c_void_p] * 2]
LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "to_small": (2, [*_CONVOLUTION, c_void_p]),
        "to_large": (2, [*_CONVOLUTION, c_void_p]),
        "to_weight": (2, _CONVOLUTION),
    },
)
_AXES = 3


@cpp_op(
    "product_to_small(Tensor large, Tensor W, Tensor? bias, Tensor(a!) small, int[] step, int[] before) -> ()",
    convolves=(3, 1),
)
def to_small(
    large: Tensor, W: Tensor, bias: Tensor | None, small: Tensor, step: Sequence[int], before: Sequence[int]
) -> None:
    """Write a convolution of `large` into `small`."""
    _run("to_small", large, small, W, step, before, bias)


@cpp_op(
    "product_to_large(Tensor small, Tensor W, Tensor? bias, Tensor(a!) large, int[] step, int[] before) -> ()",
    convolves=(0, 1),
)
def to_large(
    small: Tensor, W: Tensor, bias: Tensor | None, large: Tensor, step: Sequence[int], before: Sequence[int]
) -> None:
    """Write a transposed convolution of `small` into `large`."""
    _run("to_large", large, small, W, step, before, bias)


@cpp_op(
    "product_to_weight(Tensor large, Tensor small, Tensor(a!) W, int[] step, int[] before) -> ()",
    convolves=(1, 2),
)
def to_weight(large: Tensor, small: Tensor, W: Tensor, step: Sequence[int], before: Sequence[int]) -> None:
    """Write the gradient of W."""
    _run("to_weight", large, small, W, step, before)


def _run(
    name: str, large: Tensor, small: Tensor, W: Tensor, step: Sequence[int], before: Sequence[int],
    *biases: Tensor | None,
) -> None:  # fmt: skip
    """Call a loop with W, (small's channels, large's channels, *taps), as it lies, and what lies beside it."""
    sizes = small.shape[2:], large.shape[2:], W.shape[2:], step, before
    window = _window(*map(tuple, sizes), not W.is_contiguous())
    positions = len(small) * prod(small.shape[2:])
    space = W.new_empty(-(-positions // LANES) * LANES * (W.numel() // len(W) + len(W)))
    exact = [None if bias is None else bias.to(torch.float32).contiguous() for bias in biases]
    LOOPS.run(name, (large, small), addressof(window), len(W), *map(address, (W, space, *exact)))


@lru_cache(1024)
def _window(*sizes: Any) -> Any:
    """Make the table of sizes that `loops.cpp` reads; an image is one slice."""
    *axes, taps_first = sizes
    missing = [(1,), (1,), (1,), (1,), (0,)]
    numbers = [n for one, of in zip(missing, axes, strict=True) for n in (*one * (_AXES - len(of)), *of)]
    return (c_int64 * (len(numbers) + 1))(*numbers, taps_first)
