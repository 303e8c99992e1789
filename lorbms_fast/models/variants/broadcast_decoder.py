"""Spatial broadcast decoder (Watters et al., 2019): the code at every pixel, with the pixel's coordinates."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import coord_conv2d
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm
from lorbms_fast.models.spectral import normalized_weights
from lorbms_fast.reference.layers import SpectralConv2d, SpectralNorm


class Decoder(nn.Module):
    """Four spectrally normalized 3x3 convolutions at the image's size, ReLU after each, then one to colours."""

    def __init__(self, config: ModelConfig, normalize: SpectralNorm = spectral_norm) -> None:
        super().__init__()
        positions = (config.image_size // 32) ** 2
        width = 4 * config.growth
        self.image_size = config.image_size
        self.first = SpectralConv2d(positions * config.chunk + 2, width, 3, normalize=normalize)
        self.second = SpectralConv2d(width, width, 3, normalize=normalize)
        self.third = SpectralConv2d(width, width, 3, normalize=normalize)
        self.fourth = SpectralConv2d(width, width, 3, normalize=normalize)
        self.last = SpectralConv2d(width, 3, 1, normalize=normalize)

    def packed(self) -> dict[str, Tensor]:
        """Pack the parameters for several passes with the same ones: see `models.passes`."""
        return normalized_weights(self)

    def forward(self, f: Tensor, packed: dict[str, Tensor] | None = None) -> Tensor:
        """Decode (N, positions, chunk) as (N, 3, S, S) images in [-1, 1]."""
        W_bar = self.packed() if packed is None else packed
        size = self.image_size
        everywhere = f.flatten(1)[:, :, None, None].expand(-1, -1, size, size)
        x = torch.relu(coord_conv2d(everywhere, W_bar["first"], self.first.bias))
        for name, layer in (("second", self.second), ("third", self.third), ("fourth", self.fourth)):
            x = torch.relu(F.conv2d(x, W_bar[name], layer.bias, padding=1))
        return torch.tanh(F.conv2d(x, W_bar["last"], self.last.bias))
