"""The dense block as its authors drew it: every layer reads the concatenation of all that came before."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels.instance_norm.reference import instance_norm_relu

BlockActivation = Literal["relu", "instance_norm_relu"]
"""What each layer's convolution reads maps through."""


def dense_block(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], activation: Callable[[Tensor], Tensor]
) -> Tensor:
    """Append the maps of L convolutions to x, each reading x and all maps before it (Huang et al., 2017).

    `y_l = b_l + W_l * activation([x, y_0, .., y_{l-1}])` with `*` a convolution padded to keep height and width. The
    activation has no parameters, and is each map's own; the rest is documented at the package's function of this name.
    """
    stack = x
    for weight, bias in zip(weights, biases, strict=True):
        maps = F.conv2d(activation(stack), weight, bias, padding=weight.shape[-1] // 2)
        stack = torch.cat([stack, maps], dim=1)
    return stack


def activation_of(normed: bool, eps: float) -> Callable[[Tensor], Tensor]:
    """ReLU, of maps that are normalized first or as they are."""
    return partial(instance_norm_relu, eps=eps) if normed else torch.relu


def checked_activation(activation: BlockActivation) -> BlockActivation:
    """The activation, if there is one of this name; ValueError if there is none."""
    if activation not in get_args(BlockActivation):
        raise ValueError(f"activation '{activation}': choose one of {', '.join(get_args(BlockActivation))}")
    return activation
