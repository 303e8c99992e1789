"""The 3x3 convolution of a layer's activated maps and its gradients: Winograd's, or torch's.

Maps are channels_last. Weights have the maps' dtype or float32, whose gradients they get. There is no autograd here.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common.layout import new_maps
from lorbms_fast.kernels._common.winograd import cpp

_ONES = [1, 1]


def convolution(a: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
    """Compute `W * a + bias`, (N, O, H, W)."""
    if not _takes(a, W):
        return F.conv2d(a, W.to(a.dtype), None if bias is None else bias.to(a.dtype), padding=1)
    y = new_maps(a, len(W), *a.shape[2:])
    cpp.conv(a, W, bias, y, _ONES, False, False)
    return y


def convolution_backward(
    grad: Tensor, a: Tensor, W: Tensor, to_W: bool, to_bias: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of a, and of W and the bias where they are asked for; others are None, or not."""
    if not _takes(a, W):
        asked = [True, to_W, to_bias]
        result: tuple[Tensor, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
            grad, a, W.to(a.dtype), [len(W)], _ONES, _ONES, _ONES, False, [0, 0], 1, asked
        )
        return result
    to_a = new_maps(a, *a.shape[1:])
    cpp.backward_input(grad, W, to_a, _ONES)
    sums = grad.new_empty(len(W), dtype=torch.float32) if to_bias else None
    if not to_W:
        return to_a, None, None if sums is None else torch.sum(grad, (0, 2, 3), dtype=torch.float32, out=sums)
    taps = torch.empty_like(W)
    cpp.backward_taps(grad, a, taps, _ONES, False, cpp.PLAIN, sums)
    return to_a, taps, sums


def _takes(a: Tensor, W: Tensor) -> bool:
    lies = W.is_contiguous() or W.is_contiguous(memory_format=torch.channels_last)
    return lies and cpp.LOOPS.take(a) and cpp.pays(a.shape, W.shape, a.dtype)
