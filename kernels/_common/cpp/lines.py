"""Maps whose channels are neighbours in memory, as loops read them: a line of channels after another."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import Parameter

from lorbms_fast.kernels._common.layout import CHANNELS_LAST
from lorbms_fast.kernels._common.of_torch import is_wrapped, is_zero

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2, torch.float16: 3}
"""As `maps.h` numbers them."""


def line_stride(maps: Tensor) -> int | None:
    """Elements from one position's channels to the next's, if channels are neighbours and positions evenly spaced.

    Not of expanded maps, all of whose positions lie at one place: loops mean rows where they are told of no stride.
    """
    return _line_stride(maps.shape, maps.stride())


def _line_stride(shape: tuple[int, ...], of_dimensions: tuple[int, ...]) -> int | None:
    _, channel, *strides = of_dimensions
    if channel != 1 and shape[1] > 1:
        return None
    line = following = None
    for size, stride in zip(reversed(shape[2:]), reversed(strides), strict=True):
        if size != 1:
            if following is not None and stride != following:
                return None
            line = stride if line is None else line
            following = stride * size
    if line == 0:
        return None
    return strides[-1] if line is None else line


known_line_stride = lru_cache(4096)(_line_stride)
"""A training step asks thousands of times, of maps of a few hundred shapes. Not for what torch traces."""


def lie_in_rows(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Say whether maps are contiguous, which have a row of positions after another."""
    following = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != following:
            return False
        following *= size
    return True


def same_lines(*maps: Tensor) -> bool:
    """Can one loop go through all of these, on the CPU? Not while torch traces: its compiler makes loops of its own."""
    return _alike(*maps) and all(known_line_stride(m.shape, m.stride()) is not None for m in maps)


def same_rows(*maps: Tensor) -> bool:
    """Can one loop go through all of these, each a contiguous row of positions after another, on the CPU?"""
    return _alike(*maps) and all(m.is_contiguous() for m in maps)


def _alike(first: Tensor, *others: Tensor) -> bool:
    """Maps on the CPU, of one shape and a dtype that loops know, that are what lies in memory."""
    if first.dtype not in DTYPES or first.dim() < 3 or torch.compiler.is_compiling() or not plain(first):
        return False
    return all(plain(m) and m.dtype == first.dtype and m.shape == first.shape for m in others)


def plain(maps: Tensor) -> bool:
    """Is a tensor what lies in the CPU's memory?"""
    own = type(maps) in (Tensor, Parameter) and maps.is_cpu and maps.layout is torch.strided
    return own and not (maps.is_neg() or is_zero(maps) or is_wrapped(maps))


def empty_channels_last(x: Tensor) -> Tensor:
    """A new tensor of x's shape, (N, C, *positions), and dtype whose channels are neighbours in memory."""
    if x.dim() in CHANNELS_LAST:
        return torch.empty_like(x, memory_format=CHANNELS_LAST[x.dim()])
    return x.new_empty_strided(x.shape, channels_last_strides(x.shape))


def channels_last_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of maps of a shape whose channels are neighbours in memory, without gaps."""
    _, C, *positions = shape
    strides = [C]
    for size in reversed(positions):
        strides.insert(0, size * strides[0])
    return strides[0], 1, *strides[1:]
