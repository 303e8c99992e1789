"""Self-attention in the discriminator, where its maps are half as wide as the image."""

from torch import Tensor

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import spectral_norm
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.models import attention, discriminator


class Discriminator(discriminator.Discriminator):
    """The PatchGAN of Table 3.5 with self-attention after its first convolution."""

    sees_everything = True

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__(config, normalize)
        self.attention = attention.SelfAttention(config.discriminator_width, normalize)

    def first_maps(self, images: Tensor) -> Tensor:
        """Compute the second convolution's input, (N, width, S/2, S/2)."""
        return self.attention(super().first_maps(images))
