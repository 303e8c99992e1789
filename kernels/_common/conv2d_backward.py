"""The gradients of a convolution of images, as torch computes them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Any, Any, Any]
"""Of maps, weight and bias: tensors, or None where none was asked for."""


def conv2d_backward(grad: Tensor, x: Tensor, W: Tensor, wanted: Sequence[bool], padding: int = 0) -> Gradients:
    """Gradients of `F.conv2d(x, W, bias, padding=padding)` for those of x, W and the bias that are wanted."""
    ones, zeros, around = [1, 1], [0, 0], [padding, padding]
    result: Gradients = torch.ops.aten.convolution_backward(
        grad, x, W, [len(W)], ones, around, ones, False, zeros, 1, list(wanted)
    )
    return result
