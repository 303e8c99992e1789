"""The decoder (thesis, Table 3.3)."""

import math
from functools import partial

import torch
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import SpectralConv2d, spectral_norm
from lorbms_fast.kernels.lorbms import SpectralResizeConv2d
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.reference.layers import DenseBlock


class Decoder(nn.Module):
    """Five transitions up, each followed by a dense block; four chunks of 192 numbers -> 64x64x3."""

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__()
        conv = partial(SpectralConv2d, normalize=normalize, impl="reference")
        up = partial(SpectralResizeConv2d, normalize=normalize, impl="reference")
        self.block_inputs = config.decoder_widths
        channels = config.chunk
        for b, (width, layers) in enumerate(zip(self.block_inputs, reversed(config.layers), strict=True), start=1):
            self.add_module(f"up{b}", up(channels, width))
            self.add_module(f"block{b}", DenseBlock(width, layers, config.growth, torch.relu, conv))
            channels = layers * config.growth
        self.last = conv(width + channels, 3, 1)

    def forward(self, f: Tensor) -> Tensor:
        """Decode (N, positions, chunk) as (N, 3, S, S) images in [-1, 1], S = 32 sqrt(positions)."""
        side = math.isqrt(f.shape[1])
        new_maps = f.transpose(1, 2).unflatten(2, (side, side))
        for b, width in enumerate(self.block_inputs, start=1):
            stack = self.get_submodule(f"block{b}")(self.get_submodule(f"up{b}")(new_maps))
            new_maps = stack[:, width:]
        return torch.tanh(self.last(stack))
