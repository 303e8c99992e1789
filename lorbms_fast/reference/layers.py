"""The layers that torch does not have, made of those that it has."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import INSTANCE_NORM_EPS


def instance_norm_relu(x: Tensor) -> Tensor:
    """Activate the encoder's maps: `relu((x - mean) / sqrt(var + 1e-9))`, mean and variance over a map's positions."""
    return torch.relu(F.instance_norm(x, eps=INSTANCE_NORM_EPS))


class DenseBlock(nn.Module):
    """A dense block: each layer reads all maps before it, activated, and appends `growth` own (thesis, Figure 3.3).

    `conv` makes a layer's convolution from (in_channels, out_channels, kernel_size).
    """

    def __init__(
        self, in_channels: int, layers: int, growth: int, activation: Callable[[Tensor], Tensor],
        conv: Callable[[int, int, int], nn.Module],
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation = activation
        for i in range(layers):
            self.add_module(f"layer{i}", conv(in_channels + i * growth, growth, 3))

    def forward(self, stack: Tensor) -> Tensor:
        """Compute (N, in_channels + layers * growth, H, W) from (N, in_channels, H, W) maps."""
        for layer in self.children():
            stack = torch.cat([stack, layer(self.activation(stack))], dim=1)
        return stack
