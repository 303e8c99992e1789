"""Convolutions by 3x3 taps with their gradients: Winograd's, or oneDNN's.

Here is that of ReLU(x), `b + W * ReLU(x)`, padded so that maps keep their size. `cpp.py` has those of maps as they are
and of `ReLU(norm(x))`, of slices, with other paddings and edges, and says where they take less time than oneDNN's.

In float32 and bfloat16, on a processor with AVX2 or AVX-512 and with a C++ compiler, a 3x3 convolution takes a quarter
of the multiplications (`loops.cpp`) where its maps are large enough, and in bfloat16 a sixth where they are larger. In
float32 it is off by two to three times as much as oneDNN's, a millionth or two of the largest result; in bfloat16 by a
ten thousandth at most beside the rounding of what is read and written, which is twenty times as much, and oneDNN's too.
Elsewhere torch's operations compute the same, and nearly all in bfloat16 with AMX, which multiplies it faster. There is
no autograd.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common import norm_relu
from lorbms_fast.kernels._common.conv2d_backward import Gradients, conv2d_backward
from lorbms_fast.kernels._common.layout import new_maps
from lorbms_fast.kernels._common.winograd import cpp


def relu_conv2d(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """`b + W * ReLU(x)`, (N, O, H, W), channels_last where x is."""
    if not cpp.take(x, W):
        return F.conv2d(torch.relu(x), W, b, padding=W.shape[-1] // 2)
    y = new_maps(x, len(W), *x.shape[2:])
    cpp.conv(x, W, b, y, cpp.AROUND, True, False)
    return y


def add_relu_conv2d_(out: Tensor, x: Tensor, W: Tensor) -> None:
    """`out += W * ReLU(x)`."""
    if cpp.take(x, W, out):
        cpp.conv(x, W, None, out, cpp.AROUND, True, True)
    else:
        norm_relu.add_(out, relu_conv2d(x, W))


def relu_conv2d_backward(grad: Tensor, x: Tensor, W: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
    """Gradients of `b + W * ReLU(x)` for those of ReLU(x), W and b that are wanted, given that of the result."""
    if not cpp.take_taps(grad, x, W):
        return conv2d_backward(grad, torch.relu(x), W, wanted, W.shape[-1] // 2)
    to_x = to_W = to_b = None
    if wanted[0] and cpp.pays(x.shape, W.shape, x.dtype):
        cpp.backward_input(grad, W, to_x := new_maps(x, *x.shape[1:]), cpp.AROUND)
    elif wanted[0]:
        to_x, *_ = conv2d_backward(grad, x, W, (True, False, False), 1)  # of x only the size is read
    if wanted[1]:
        sums = [grad.new_empty(len(W), dtype=torch.float32)] if wanted[2] else []
        cpp.backward_taps(grad, x, to_W := torch.empty_like(W), cpp.AROUND, True, cpp.PLAIN, sums)
        to_b = sums[0].to(grad.dtype) if sums else None
    elif wanted[2]:
        to_b = grad.sum((0, 2, 3))
    return to_x, to_W, to_b
