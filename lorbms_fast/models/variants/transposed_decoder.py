"""The thesis's decoder with transposed convolutions instead of resize convolutions (Section 3.6.1)."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels import SpectralNorm
from lorbms_fast.models import decoder


class TransposedConv2d(SpectralNorm, nn.Conv2d):
    """A transition up by a spectrally normalized transposed 3x3 convolution of stride 2, without bias.

    Its parameters are those of the resize convolution, by name, shape and number.
    """

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__(in_channels, out_channels, 3, bias=False, **options)

    def forward(self, x: Tensor) -> Tensor:
        """Compute (N, out, 2 H, 2 W) from (N, in, H, W) maps: every pixel adds a 3x3 patch around twice its place."""
        return F.conv_transpose2d(x, self.normalized().transpose(0, 1), stride=2, padding=1, output_padding=1)


class Decoder(decoder.Decoder):
    """The decoder of Table 3.3 but for its transitions up."""

    transition_up = TransposedConv2d
