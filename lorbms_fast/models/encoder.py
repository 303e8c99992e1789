"""The encoder (thesis, Table 3.1)."""

from torch import Tensor, nn

from lorbms_fast.config import INSTANCE_NORM_EPS, ModelConfig
from lorbms_fast.kernels import CoordConv2d, DenseBlock
from lorbms_fast.kernels.lorbms import TransitionDown


class Encoder(nn.Module):
    """Five dense blocks, each followed by a transition down; 64x64x3 -> four chunks of 192 numbers."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.first = CoordConv2d(3, config.stem, kernel_size=3)
        channels = config.stem
        for b, layers in enumerate(config.layers, start=1):
            block = DenseBlock(channels, layers, config.growth, activation="instance_norm_relu", eps=INSTANCE_NORM_EPS)
            self.add_module(f"block{b}", block)
            channels += layers * config.growth
            self.add_module(f"down{b}", TransitionDown(channels))
        self.last = nn.Conv2d(channels, config.chunk, 1)
        self.blocks = len(config.layers)

    def forward(self, images: Tensor) -> Tensor:
        """Encode (N, 3, S, S) images in [-1, 1] as (N, (S/32)^2, chunk); for S = 64 chunk i is quadrant i."""
        x = self.first(images)
        for b in range(1, self.blocks + 1):
            x = self.get_submodule(f"down{b}")(self.get_submodule(f"block{b}"), x)  # down runs the block in front of it
        chunks: Tensor = self.last(x)
        return chunks.flatten(2).transpose(1, 2)
