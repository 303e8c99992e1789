"""A block of torchvision's DenseNet: every layer normalizes and reads the concatenation of all that came before."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Statistics = tuple[Tensor, Tensor]
"""Means and variances of some maps."""


class Norm(NamedTuple):
    """A batch norm."""

    weight: Tensor
    bias: Tensor
    eps: float
    statistics: Statistics | None
    """That it normalizes with; None takes the batch's own, with biased variances."""


class Layer(NamedTuple):
    """One layer: `dropout(conv2(ReLU(norm2(conv1(ReLU(norm1(stack)))))))`."""

    norm1: Norm
    conv1: Tensor
    """(bottleneck, C + l * growth, 1, 1)."""
    norm2: Norm
    conv2: Tensor
    """(growth, bottleneck, 3, 3)."""
    dropout: Tensor | None
    """What the maps are multiplied with, (N, growth, H, W)."""


def densenet_block(x: Tensor, layers: Sequence[Layer]) -> Tensor:
    """Append the maps of L layers to x (Huang et al., 2017).

    Args:
        x: (N, C, H, W).
        layers: L of them, in order.

    Returns:
        (N, C + L * growth, H, W): x itself, then each layer's maps in order.
    """
    stack = x
    for layer in layers:
        bottleneck = F.conv2d(_norm_relu(stack, layer.norm1), layer.conv1.to(x.dtype))
        y = F.conv2d(_norm_relu(bottleneck, layer.norm2), layer.conv2.to(x.dtype), padding=1)
        stack = torch.cat([stack, y if layer.dropout is None else y * layer.dropout], 1)
    return stack


def _norm_relu(x: Tensor, norm: Norm) -> Tensor:
    mean, var = norm.statistics or (None, None)
    return F.batch_norm(x, mean, var, norm.weight, norm.bias, norm.statistics is None, 0.0, norm.eps).relu()
