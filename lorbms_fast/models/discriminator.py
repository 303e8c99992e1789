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
        self.conv1: nn.Module = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.conv2: nn.Module = SpectralConv2d(width, 2 * width, 4, stride=2, normalize=normalize)
        self.conv3: nn.Module = SpectralConv2d(2 * width, 4 * width, 4, stride=2, normalize=normalize)
        self.conv4: nn.Module = SpectralConv2d(4 * width, 8 * width, 4, stride=2, normalize=normalize)
        self.conv5: nn.Module = nn.Conv2d(8 * width, 1, 1)

    def features(self, images: Tensor) -> Tensor:
        """Compute the last convolution's input, (N, 8 width, S/16, S/16), from (N, 3, S, S) images in [-1, 1]."""
        x = self.first_maps(images)
        for conv in (self.conv2, self.conv3, self.conv4):
            x = F.leaky_relu(conv(x), 0.2)
        return x

    def first_maps(self, images: Tensor) -> Tensor:
        """Compute the second convolution's input, (N, width, S/2, S/2)."""
        return F.leaky_relu(self.conv1(images), 0.2)

    def forward(self, images: Tensor) -> Tensor:
        """Compute (N, 1, S/16, S/16) logits, positive for real, from (N, 3, S, S) images in [-1, 1]."""
        return self.conv5(self.features(images))
