"""Convolutions and transposed ones, of images and of volumes."""

import torch.nn.functional as F
from torch import Tensor

Sizes = tuple[int, ...]
"""A number for each dimension of positions."""


def product_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes) -> Tensor:
    """(N, C, *size), (O, C, *taps) and (O,) -> (N, O, *(size + 2 padding - taps) // stride + 1)."""
    return (F.conv2d if x.dim() == 4 else F.conv3d)(x, weight, bias, stride, padding)


def product_conv_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, output_padding: Sizes
) -> Tensor:
    """(N, C, *size), (C, O, *taps) and (O,) -> (N, O, *(size - 1) stride - 2 padding + taps + output_padding)."""
    transposed = F.conv_transpose2d if x.dim() == 4 else F.conv_transpose3d
    return transposed(x, weight, bias, stride, padding, output_padding)
