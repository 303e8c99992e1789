"""The products of a resize convolution spread and gathered by C++ loops. Documented in `fused.py`."""

from ctypes import c_int64
from pathlib import Path

from torch import Tensor

from lorbms_fast.kernels._common.cpp import Loops, cpp_op
from lorbms_fast.kernels._common.layout import new_maps

LOOPS = Loops(Path(__file__).with_name("loops.cpp"), {"spread": (2, [c_int64]), "gather": (2, [c_int64])})


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
