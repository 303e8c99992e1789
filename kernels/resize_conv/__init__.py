"""Resize convolution: doubles height and width without checkerboard artefacts (Odena et al., 2016)."""

import torch
from torch import Tensor, nn

from lorbms_fast.kernels.dispatch import TRITON, Impl, resolve
from lorbms_fast.kernels.resize_conv import definition, fused

if TRITON:
    from lorbms_fast.kernels.resize_conv import triton


def resize_conv(x: Tensor, weight: Tensor, impl: Impl | None = None) -> Tensor:
    """Nearest-neighbour enlarging by 4, then a 3x3 convolution of stride 2 padded after, without bias.

    Args:
        x: (N, C, H, W).
        weight: (O, C, 3, 3).
        impl: form to run; None takes the one in force.

    Returns:
        (N, O, 2 H, 2 W).
    """
    form = resolve(impl, x)
    if form == "triton":
        return triton.resize_conv(x, weight)
    return (definition if form == "reference" else fused).resize_conv(x, weight)


class ResizeConv2d(nn.Module):
    """A resize convolution with its weight, (out_channels, in_channels, 3, 3), and no bias.

    Args:
        in_channels: maps of the input.
        out_channels: maps of the output, twice as high and wide.
        impl: form to run; None takes the one in force.
    """

    def __init__(self, in_channels: int, out_channels: int, impl: Impl | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        self.impl = impl

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2 H, 2 W)."""
        return resize_conv(x, self.weight, self.impl)
