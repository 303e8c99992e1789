"""The 3x3 convolution of what a layer's norm and ReLU make of maps, and its gradients: Winograd's, or torch's.

Maps are channels_last, perhaps some of wider ones. Weights have the maps' dtype or float32, whose gradients they get.
There is no autograd here.
"""

from functools import cache
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common.conv2d_backward import conv2d_backward
from lorbms_fast.kernels._common.layout import is_dense, new_maps
from lorbms_fast.kernels._common.winograd import cpp
from lorbms_fast.kernels.densenet_block.norms import Norm, matrix

_FEW, _NARROW, _POINTS = 256, 48, 2_900_000


def convolution(form: ModuleType, x: Tensor, norm: Norm, W: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Write `W * ReLU(norm(x)) + bias`.

    Args:
        form: of norms that takes x, `cpp` or `norms`.
        x: (N, C, H, W).
        norm: of its channels.
        W: (O, C, 3, 3).
        bias: (O,).
        out: (N, O, H, W).
    """
    if _takes(x, W):
        cpp.norm_conv(x, norm[:4], norm.eps, W, bias, out)
    else:
        a = _activated(form, x, norm)
        out.copy_(F.conv2d(a, W.to(a.dtype), None if bias is None else bias.to(a.dtype), padding=1))


def backward_weight(
    form: ModuleType, grad: Tensor, x: Tensor, norm: Norm, W: Tensor, to_W: bool, to_bias: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Compute gradients of W and of the bias where they are asked for; others are None, or not."""
    if not _takes(x, W):
        a = _activated(form, x, norm) if to_W else x
        _, of_W, of_bias = conv2d_backward(grad, a, W.to(a.dtype), (False, to_W, to_bias), padding=1)
        return of_W, of_bias
    if not to_W:
        return None, torch.sum(grad, (0, 2, 3), dtype=torch.float32) if to_bias else None
    taps, sums = torch.empty_like(W), [grad.new_empty(len(W), dtype=torch.float32)] if to_bias else []
    cpp.norm_backward_taps(grad, x, norm[:4], norm.eps, taps, sums)
    return taps, sums[0] if sums else None


def backward_input(grad: Tensor, x: Tensor, W: Tensor) -> Tensor:
    """Compute the gradient of what is convolved, `ReLU(norm(x))`."""
    if not _takes(x, W):
        to_x, *_ = conv2d_backward(grad, x, W.to(x.dtype), (True, False, False), padding=1)
        return to_x
    to_a = new_maps(x, *x.shape[1:])
    cpp.backward_input(grad, W, to_a, cpp.AROUND)
    return to_a


def backward_norm(
    form: ModuleType, grad: Tensor, x: Tensor, norm: Norm, W: Tensor, sum_g: Tensor, sum_along: Tensor, add_to: Tensor,
) -> None:  # fmt: skip
    """Do as `norms.sums` with the gradient of `ReLU(norm(x))`; `add_to` has x's strides."""
    if _takes(x, W):
        cpp.norm_backward_input(grad, x, norm[:4], norm.eps, W, add_to, sum_g, sum_along)
    else:
        to_a, of_x, to_x = map(matrix, (backward_input(grad, x, W), x, add_to))
        form.sums(to_a.contiguous(), of_x, norm, sum_g, sum_along, to_x)


def _activated(form: ModuleType, x: Tensor, norm: Norm) -> Tensor:
    a = new_maps(x, *x.shape[1:])
    form.norm_relu(matrix(x), norm, matrix(a))
    return a


def _takes(x: Tensor, W: Tensor) -> bool:
    return cpp.LOOPS.take(x) and faster(x, W)


def faster(x: Tensor, W: Tensor) -> bool:
    """Would loops, where there are some, convolve channels_last maps of x's size and dtype in less time than torch?"""
    return is_dense(W) and _pays(x.shape, W.shape, x.dtype)


@cache
def _pays(x: torch.Size, W: torch.Size, dtype: torch.dtype) -> bool:
    """Also where few multiplications are saved, if positions and the maps they give are few.

    Torch's time goes into another order of the weight then, and in 16 bits into its copy in the maps' dtype. In float32
    it has products for a few. But it leaves out taps that only see zeros, as most do in maps of one row or column: of
    64 maps of 1x1 (128 channels to 32) loops took 1.3 times as long, of 256 (1008 to 16) 3 times, of 64 of 1x4 (256 to
    48) 1.3 times. And points of many channels cost too much where tiles are half empty: of 64 maps of 2x2 (128 to 32)
    loops took 0.7 times as long, of 6 of 2x5 (1024 to 16, in bfloat16) as long, of 10 of these 1.3 times.
    """
    (O, C), positions, points = W[:2], x[0] * x[2] * x[3], cpp.multiplications(4, x)
    few = O <= _NARROW and (16 if dtype == torch.bfloat16 else 36) <= positions <= _FEW and min(x[2:]) > 1
    full = C * points**2 <= _POINTS * positions
    return cpp.pays(x, W, dtype) or (few and full and cpp.possible(W, dtype))
