"""Maps whose channels are neighbours in memory, as loops read them: a line of channels after another."""

from typing import NamedTuple

import torch
from torch import Tensor

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
"""As `maps.h` numbers them."""


class Lines(NamedTuple):
    """Where (N, C, H, W) lie: sample n's position p has its channels at `address + n * sample + p * line` elements."""

    address: int
    sample: int
    line: int


def lines(maps: Tensor) -> Lines | None:
    """The lines of channels_last maps, or of some channels of them; None where the maps lie in another way."""
    _, channels, height, width = maps.shape
    sample, channel, row, column = maps.stride()
    if channel != 1 and channels > 1:
        return None
    line = column if width > 1 else row
    if height > 1 and width > 1 and row != width * column:
        return None
    return Lines(maps.data_ptr(), sample, line)


def same_lines(*maps: Tensor) -> bool:
    """Can one loop go through all of these, on the CPU? Not while torch traces: its compiler makes loops of its own."""
    first = maps[0]
    if first.dtype not in DTYPES or first.dim() != 4 or torch.compiler.is_compiling():
        return False
    return all(
        type(m) is Tensor and m.is_cpu and m.dtype == first.dtype and m.shape == first.shape and lines(m) is not None
        for m in maps
    )
