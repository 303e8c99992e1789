"""The pool as C++ loops over channels_last or contiguous maps, registered as operations of torch's.

Documented at `fused`.
"""

from ctypes import c_int64
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.cpp.vectors import LANES
from lorbms_fast.kernels._common.layout import is_channels_last, new_maps

_SIZE = [c_int64] * 2
LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {"pool": (3, [c_int64]), "unpool": (3, [c_int64]), "pool_rows": (3, _SIZE), "unpool_rows": (3, _SIZE)},
)


def take_rows(maps: Tensor, across: int) -> bool:
    """Can loops go through contiguous maps like these, whose rows have so many squares?"""
    return maps.dtype in (torch.float32, torch.bfloat16) and across >= LANES and LOOPS.take_rows(maps)


@cpp_op("pool_maps(Tensor x) -> (Tensor, Tensor)")
def pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Result, and which of the four it was."""
    height, width = x.shape[2:]
    in_lines = is_channels_last(x)
    y = _new(x, height // 2, width // 2, in_lines)
    which = torch.empty_like(y, dtype=torch.uint8)
    if in_lines:
        LOOPS.run("pool", (y, which, x), width)
    else:
        LOOPS.run("pool_rows", (x, y, which), height, width)
    return y, which


@cpp_op("unpool_maps(Tensor grad, Tensor which, int height, int width) -> Tensor")
def unpooled(grad: Tensor, which: Tensor, height: int, width: int) -> Tensor:
    """Gradient of x, whose layout is that of both."""
    in_lines = is_channels_last(which)
    to_x = _new(grad, height, width, in_lines)
    if height % 2 or width % 2:
        to_x.zero_()
    if in_lines:
        LOOPS.run("unpool", (grad, which, to_x), width)
    else:
        LOOPS.run("unpool_rows", (to_x, grad, which), height, width)
    return to_x


def _new(like: Tensor, height: int, width: int, in_lines: bool) -> Tensor:
    """Maps of another size, channels_last or contiguous."""
    channels = like.shape[1]
    return new_maps(like, channels, height, width) if in_lines else like.new_empty(len(like), channels, height, width)
