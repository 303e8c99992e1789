"""Self-attention in the decoder, where its maps are half as wide as the image."""

from torch import Tensor

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import spectral_norm
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.models import attention, decoder

STAGE = 4


class Decoder(decoder.Decoder):
    """The decoder of Table 3.3 with self-attention on the new maps of its fourth stage, which the last one reads."""

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__(config, normalize)
        self.attention = attention.SelfAttention(config.layers[-STAGE] * config.growth, normalize)

    def stage(self, b: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute transition up b, (N, width, 2 H, 2 W), and the new maps of the dense block behind it."""
        x, new_maps = super().stage(b, x)
        return x, self.attention(new_maps) if b == STAGE else new_maps
