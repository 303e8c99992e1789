"""The PatchGAN discriminator (thesis, Table 3.5)."""

import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import SpectralConv2d, spectral_norm
from lorbms_fast.kernels.spectral_norm import Normalize


class Discriminator(nn.Module):
    """Four strided convolutions, of which the last three are spectrally normalized, and one logit a patch."""

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__()
        width = config.discriminator_width
        self.conv1 = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.conv2 = SpectralConv2d(width, 2 * width, 4, stride=2, normalize=normalize)
        self.conv3 = SpectralConv2d(2 * width, 4 * width, 4, stride=2, normalize=normalize)
        self.conv4 = SpectralConv2d(4 * width, 8 * width, 4, stride=2, normalize=normalize)
        self.conv5 = nn.Conv2d(8 * width, 1, 1)

    def features(self, images: Tensor) -> Tensor:
        """Compute the last convolution's input, (N, 8 width, S/16, S/16), from (N, 3, S, S) images in [-1, 1]."""
        x = images
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.leaky_relu(conv(x), 0.2)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """Compute (N, 1, S/16, S/16) logits, positive for real, from (N, 3, S, S) images in [-1, 1]."""
        logits: Tensor = self.conv5(self.features(images))
        return logits
