"""The pool of channels_last maps as C++ loops, registered as operations of torch's. Documented at `fused`."""

from ctypes import c_int64
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.layout import new_maps

LOOPS = Loops(Path(__file__).with_name("loops.cpp"), {"pool": (3, [c_int64]), "unpool": (3, [c_int64])})


@cpp_op("pool_maps(Tensor x) -> (Tensor, Tensor)")
def pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Result, and which of the four it was."""
    _, channels, height, width = x.shape
    y = new_maps(x, channels, height // 2, width // 2)
    which = torch.empty_like(y, dtype=torch.uint8)
    LOOPS.run("pool", (y, which, x), width)
    return y, which


@cpp_op("unpool_maps(Tensor grad, Tensor which, int height, int width) -> Tensor")
def unpooled(grad: Tensor, which: Tensor, height: int, width: int) -> Tensor:
    """Gradient of x."""
    to_x = new_maps(grad, grad.shape[1], height, width)
    if height % 2 or width % 2:
        to_x.zero_()
    LOOPS.run("unpool", (grad, which, to_x), width)
    return to_x
