"""The decoder (thesis, Table 3.3)."""

import math
from functools import partial
from typing import Any

from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import DenseBlock, SpectralConv2d, spectral_norm
from lorbms_fast.kernels.lorbms import SpectralOutputConv2d, SpectralResizeConv2d
from lorbms_fast.kernels.spectral_norm import Normalize


class Decoder(nn.Module):
    """Five transitions up, each followed by a dense block; four chunks of 192 numbers -> 64x64x3."""

    transition_up: Any = SpectralResizeConv2d

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__()
        conv = partial(SpectralConv2d, normalize=normalize)
        channels = config.chunk
        for b, (width, layers) in enumerate(zip(config.decoder_widths, reversed(config.layers), strict=True), start=1):
            self.add_module(f"up{b}", self.transition_up(channels, width, normalize=normalize))
            self.add_module(f"block{b}", DenseBlock(width, layers, config.growth, activation="relu", conv=conv))
            channels = layers * config.growth
        self.last = SpectralOutputConv2d(width + channels, 3, normalize=normalize)
        self.blocks = len(config.layers)

    def forward(self, f: Tensor) -> Tensor:
        """Decode (N, positions, chunk) as (N, 3, S, S) images in [-1, 1], S = 32 sqrt(positions)."""
        side = math.isqrt(f.shape[1])
        new_maps = f.transpose(1, 2).unflatten(2, (side, side))
        for b in range(1, self.blocks + 1):
            x, new_maps = self.stage(b, new_maps)
        return self.last(x, new_maps)  # reads the whole stack, the other stages' new maps alone go on

    def stage(self, b: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute transition up b, (N, width, 2 H, 2 W), and the new maps of the dense block behind it."""
        x = self.get_submodule(f"up{b}")(x)
        block: Any = self.get_submodule(f"block{b}")
        return x, block.new_maps(x)
