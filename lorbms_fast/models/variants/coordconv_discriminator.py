"""A discriminator that is told coordinates before every convolution, with self-attention (Appendix D.4)."""

import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import SpectralConv2d, spectral_norm
from lorbms_fast.kernels.coord_conv.reference import append_coordinates
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.models.attention import SelfAttention


class CoordConv(nn.Module):
    """Append the coordinates x and y and convolve (Liu et al., 2018).

    Args:
        conv: a convolution that reads two maps more than its input has.
    """

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) maps and their coordinates."""
        y: Tensor = self.conv(append_coordinates(x))
        return y


class Discriminator(nn.Module):
    """The PatchGAN of Table 3.5 with a CoordConv for each convolution and self-attention after the first."""

    sees_everything = True

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__()
        width = config.discriminator_width
        self.conv1 = CoordConv(nn.Conv2d(3 + 2, width, 4, stride=2, padding=1))
        self.attention = SelfAttention(width, normalize)
        self.conv2 = CoordConv(SpectralConv2d(width + 2, 2 * width, 4, stride=2, normalize=normalize))
        self.conv3 = CoordConv(SpectralConv2d(2 * width + 2, 4 * width, 4, stride=2, normalize=normalize))
        self.conv4 = CoordConv(SpectralConv2d(4 * width + 2, 8 * width, 4, stride=2, normalize=normalize))
        self.conv5 = CoordConv(nn.Conv2d(8 * width + 2, 1, 1))

    def features(self, images: Tensor) -> Tensor:
        """Compute (N, 8 width, S/16, S/16) maps from (N, 3, S, S) images in [-1, 1]."""
        x = self.attention(F.leaky_relu(self.conv1(images), 0.2))
        for conv in (self.conv2, self.conv3, self.conv4):
            x = F.leaky_relu(conv(x), 0.2)
        return x

    def forward(self, images: Tensor) -> Tensor:
        """Compute (N, 1, S/16, S/16) logits, positive for real, from (N, 3, S, S) images in [-1, 1]."""
        logits: Tensor = self.conv5(self.features(images))
        return logits
