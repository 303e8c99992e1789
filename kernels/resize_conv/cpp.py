"""A resize convolution's taps folded, and its products spread and gathered, by C++ loops. Documented in `fused.py`."""

from ctypes import c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.cpp.lines import DTYPES
from lorbms_fast.kernels._common.layout import new_maps

LOOPS = Loops(
    Path(__file__).with_name("loops.cpp"),
    {
        "fold": (1, [c_int, c_void_p]),
        "unfold": (1, [c_int, c_void_p]),
        "spread": (2, [c_int64]),
        "gather": (2, [c_int64]),
    },
)


def take(weight: Tensor, dtype: torch.dtype) -> bool:
    """Is a weight folded here into taps of a dtype? Its own is that in which such taps are added up."""
    return dtype in DTYPES and weight.dtype == torch.promote_types(dtype, torch.float32) and LOOPS.take(weight)


@cpp_op("fold_taps(Tensor weight, ScalarType dtype) -> Tensor")
def fold(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(O, C, 3, 3) -> the taps of all four phases, (9, O, C)."""
    O, C = weight.shape[:2]
    taps = weight.new_empty((9, O, C), dtype=dtype)
    LOOPS.run("fold", (weight,), DTYPES[dtype], taps.data_ptr())
    return taps


@cpp_op("unfold_taps(Tensor grad, Tensor(a!) to_weight) -> ()")
def unfold(grad: Tensor, to_weight: Tensor) -> None:
    """Write the gradient of a weight, from that of its taps, contiguous."""
    LOOPS.run("unfold", (to_weight,), DTYPES[grad.dtype], grad.data_ptr())


@cpp_op("spread_products(Tensor z) -> Tensor")
def spread(z: Tensor) -> Tensor:
    """Products (N, 4 O, H, W) -> the result (N, O, 2 H, 2 W)."""
    _, channels, height, width = z.shape
    y = new_maps(z, channels // 4, 2 * height, 2 * width)
    LOOPS.run("spread", (z, y), width)
    return y


@cpp_op("gather_products(Tensor grad) -> Tensor")
def gather(grad: Tensor) -> Tensor:
    """The gradient of the products from that of the result."""
    _, channels, height, width = grad.shape
    z = new_maps(grad, 4 * channels, height // 2, width // 2)
    LOOPS.run("gather", (z, grad), width // 2)
    return z
