"""Self-attention in the decoder, where its maps are half as wide as the image."""

from typing import Any

from torch import Tensor

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import PackedLayers
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm
from lorbms_fast.models import attention, fast
from lorbms_fast.reference.layers import SpectralNorm

STAGE = 4


class Decoder(fast.Decoder):
    """The decoder of Table 3.3 with self-attention on the new maps of its fourth stage, which the last one reads."""

    def __init__(self, config: ModelConfig, normalize: SpectralNorm = spectral_norm) -> None:
        super().__init__(config, normalize)
        self.attention = attention.SelfAttention(config.layers[-STAGE] * config.growth, normalize)

    def _maps(self, b: int, up: Any, block: PackedLayers, x: Tensor) -> Tensor:
        """Compute transition up and dense block b: the new maps, all that the next one reads."""
        new_maps = super()._maps(b, up, block, x)
        return self.attention(new_maps) if b == STAGE else new_maps
