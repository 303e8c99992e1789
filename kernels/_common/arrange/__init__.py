"""Maps copied from one layout to another, for which torch takes up to twenty times as long as for a plain copy."""

from ctypes import c_int
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op

LOOPS = Loops(Path(__file__).with_name("loops.cpp"), {"arrange": (2, [c_int])})


def arranged(maps: Tensor, layout: torch.memory_format) -> Tensor:
    """(N, C, H, W) in a layout: the same, or a copy."""
    if maps.is_contiguous(memory_format=layout):
        return maps
    copy = torch.empty_like(maps, memory_format=layout)
    copy_(copy, maps)
    return copy


def copy_(to: Tensor, maps: Tensor) -> None:
    """Copy maps into others of their shape and dtype, whatever the layouts."""
    for lines, rows in ((to, maps), (maps, to)):
        if maps.dtype in (torch.float32, torch.bfloat16) and LOOPS.take(lines) and LOOPS.take_rows(rows):
            return arrange(lines, rows, lines is to)
    to.copy_(maps)


@cpp_op("arrange(Tensor(a!) lines, Tensor(b!) rows, bool to_lines) -> ()")
def arrange(lines: Tensor, rows: Tensor, to_lines: bool) -> None:
    """Copy maps whose channels are neighbours to contiguous ones, or the other way."""
    LOOPS.run("arrange", (lines, rows), to_lines)
