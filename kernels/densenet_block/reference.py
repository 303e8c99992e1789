"""A block of a DenseNet: every layer normalizes and reads the concatenation of all that came before."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Statistics = tuple[Tensor, Tensor]
"""Means and variances of some maps."""


class BatchNorm(NamedTuple):
    """A batch norm."""

    weight: Tensor
    bias: Tensor
    eps: float
    statistics: Statistics | None
    """Means and variances that it normalizes with; None takes the batch's own, with biased variances."""


class Bottleneck(NamedTuple):
    """What narrows the maps that a layer's 3x3 convolution reads: `ReLU(norm(conv(maps)))`."""

    conv: Tensor
    """(bottleneck, C + l * growth, 1, 1)."""
    norm: BatchNorm


class Layer(NamedTuple):
    """One layer: `dropout(conv(bottleneck(ReLU(norm(stack)))) + bias)`."""

    norm: BatchNorm
    bottleneck: Bottleneck | None
    """None: the convolution reads all."""
    conv: Tensor
    """(growth, bottleneck or C + l * growth, 3, 3)."""
    bias: Tensor | None
    dropout: Tensor | None
    """What the maps are multiplied with, (N, growth, H, W) or (N, growth, 1, 1)."""


def densenet_block(x: Tensor, layers: Sequence[Layer], new_alone: bool = False) -> Tensor:
    """Append the maps of L layers to x (Huang et al., 2017).

    Args:
        x: (N, C, H, W).
        layers: L of them, in order.
        new_alone: leave x out of the result.

    Returns:
        (N, C + L * growth, H, W): x itself, then each layer's maps in order.
    """
    stack = x
    for layer in layers:
        a = _norm_relu(stack, layer.norm)
        if layer.bottleneck is not None:
            a = _norm_relu(F.conv2d(a, layer.bottleneck.conv.to(x.dtype)), layer.bottleneck.norm)
        y = F.conv2d(a, layer.conv.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype), padding=1)
        stack = torch.cat([stack, y if layer.dropout is None else y * layer.dropout], 1)
    return stack[:, x.shape[1] :] if new_alone else stack


def _norm_relu(x: Tensor, norm: BatchNorm) -> Tensor:
    mean, var = norm.statistics or (None, None)
    return F.batch_norm(x, mean, var, norm.weight, norm.bias, norm.statistics is None, 0.0, norm.eps).relu()
