"""3x3 convolutions of maps, or of their ReLU, with their gradients: Winograd's, or oneDNN's.

In float32 and bfloat16, on a processor with AVX2 or AVX-512 and with a C++ compiler, they take a quarter of the
multiplications (`loops.cpp`) where maps are large enough. In float32 a result is off by two to three times as much as
oneDNN's, a millionth or two of the largest one; in bfloat16 only what is read and written is rounded, as there.
Elsewhere torch's operations compute the same, and bfloat16 with AMX, which multiplies it faster. There is no autograd.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common import norm_relu
from lorbms_fast.kernels._common.layout import new_maps
from lorbms_fast.kernels._common.winograd import cpp

Gradients = tuple[Any, Any, Any]
"""Tensors, or None where none was asked for."""


def relu_conv2d(x: Tensor, W: Tensor, b: Tensor | None = None, activated: bool = False) -> Tensor:
    """`b + W * ReLU(x)`, (N, O, H, W), channels_last where x is; `activated`: x is ReLU(x) already."""
    if not cpp.take(x, W):
        return F.conv2d(x if activated else torch.relu(x), W, b, padding=W.shape[-1] // 2)
    y = new_maps(x, len(W), *x.shape[2:])
    cpp.conv2d(x, W, b, y, 1, True, False)
    return y


def add_relu_conv2d_(out: Tensor, x: Tensor, W: Tensor) -> None:
    """`out += W * ReLU(x)`."""
    if cpp.take(x, W, out):
        cpp.conv2d(x, W, None, out, 1, True, True)
    else:
        norm_relu.add_(out, relu_conv2d(x, W))


def relu_conv2d_backward(
    grad: Tensor, x: Tensor, W: Tensor, mask: tuple[bool, bool, bool], activated: bool = False
) -> Gradients:
    """Gradients of `b + W * ReLU(x)` for the masked ones of ReLU(x), W and b, given that of the result."""
    if cpp.take(x, W, grad):
        return _gradients(grad, x, W, mask, 1, relu=True)
    return _by_torch(grad, x if activated else torch.relu(x), W, mask, W.shape[-1] // 2)


def conv2d(x: Tensor, W: Tensor, b: Tensor | None = None, padding: int = 1) -> Tensor:
    """`b + W * x`, x padded by 0, 1 or 2 on each side: channels_last where it is Winograd's."""
    if not cpp.take(x, W, padding=padding):
        return F.conv2d(x, W, b, padding=padding)
    y = new_maps(x, len(W), *cpp.out_size(x, padding))
    cpp.conv2d(x, W, b, y, padding, False, False)
    return y


def conv2d_backward(grad: Tensor, x: Tensor, W: Tensor, mask: tuple[bool, bool, bool], padding: int = 1) -> Gradients:
    """Gradients of `b + W * x` for the masked ones of x, W and b, given that of the result."""
    if cpp.take(x, W, grad, padding):
        return _gradients(grad, x, W, mask, padding, relu=False)
    return _by_torch(grad, x, W, mask, padding)


def _gradients(
    grad: Tensor, x: Tensor, W: Tensor, mask: tuple[bool, bool, bool], padding: int, relu: bool
) -> Gradients:
    to_x = to_W = None
    if mask[0]:
        cpp.backward_input(grad, W, to_x := new_maps(x, *x.shape[1:]), padding)
    if mask[1]:
        cpp.backward_taps(grad, x, to_W := torch.empty_like(W), padding, relu)
    return to_x, to_W, grad.sum((0, 2, 3)) if mask[2] else None


def _by_torch(grad: Tensor, x: Tensor, W: Tensor, mask: tuple[bool, bool, bool], padding: int) -> Gradients:
    ones, none = [1, 1], [0, 0]
    result: Gradients = torch.ops.aten.convolution_backward(
        grad, x, W, [len(W)], ones, [padding] * 2, ones, False, none, 1, list(mask)
    )
    return result
