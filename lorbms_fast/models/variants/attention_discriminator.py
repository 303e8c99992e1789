"""Self-attention in the discriminator, where its maps are half as wide as the image."""

import torch.nn.functional as F
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

    def features(self, images: Tensor) -> Tensor:
        """Compute (N, 8 width, S/16, S/16) maps from (N, 3, S, S) images in [-1, 1]."""
        x = self.attention(F.leaky_relu(self.conv1(images), 0.2))
        for conv in (self.conv2, self.conv3, self.conv4):
            x = F.leaky_relu(conv(x), 0.2)
        return x
