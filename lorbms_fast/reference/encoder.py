"""The encoder (thesis, Table 3.1)."""

import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels.coord_conv.reference import append_coordinates
from lorbms_fast.reference.layers import DenseBlock, instance_norm_relu


def _conv3x3(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)


class Encoder(nn.Module):
    """Five dense blocks, each followed by a transition down; 64x64x3 -> four chunks of 192 numbers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.first = _conv3x3(3 + 2, config.stem, 3)
        channels = config.stem
        self.widths = config.encoder_widths
        self.blocks = len(self.widths)
        for b, layers in enumerate(config.layers, start=1):
            self.add_module(f"block{b}", DenseBlock(channels, layers, config.growth, instance_norm_relu, _conv3x3))
            channels += layers * config.growth
            self.add_module(f"down{b}", nn.Conv2d(channels, channels, 1))
        self.last = nn.Conv2d(channels, config.chunk, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Encode (N, 3, S, S) images in [-1, 1] as (N, (S/32)^2, chunk); for S = 64 chunk i is quadrant i."""
        x = self.first(append_coordinates(images))
        for b in range(1, self.blocks + 1):
            x = self.get_submodule(f"block{b}")(x)
            x = F.max_pool2d(self.get_submodule(f"down{b}")(instance_norm_relu(x)), 2)
        chunks: Tensor = self.last(x)
        return chunks.flatten(2).transpose(1, 2)
