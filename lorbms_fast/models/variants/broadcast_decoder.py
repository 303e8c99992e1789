"""Spatial broadcast decoder (Watters et al., 2019): the code at every pixel, with the pixel's coordinates."""

import torch
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import SpectralConv2d, coord_conv2d, spectral_norm
from lorbms_fast.kernels.spectral_norm import Normalize


class Decoder(nn.Module):
    """Four spectrally normalized 3x3 convolutions at the image's size, ReLU after each, then one to colours."""

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__()
        positions = (config.image_size // 32) ** 2
        width = 4 * config.growth
        self.image_size = config.image_size
        self.first = SpectralConv2d(positions * config.chunk + 2, width, 3, normalize=normalize)
        self.second = SpectralConv2d(width, width, 3, normalize=normalize)
        self.third = SpectralConv2d(width, width, 3, normalize=normalize)
        self.fourth = SpectralConv2d(width, width, 3, normalize=normalize)
        self.last = SpectralConv2d(width, 3, 1, normalize=normalize)

    def forward(self, f: Tensor) -> Tensor:
        """Decode (N, positions, chunk) as (N, 3, S, S) images in [-1, 1]."""
        size = self.image_size
        everywhere = f.flatten(1)[:, :, None, None].expand(-1, -1, size, size)
        x = torch.relu(coord_conv2d(everywhere, self.first.normalized(), self.first.bias))
        for layer in (self.second, self.third, self.fourth):
            x = torch.relu(layer(x))
        return torch.tanh(self.last(x))
