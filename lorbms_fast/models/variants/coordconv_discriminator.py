"""A discriminator that is told coordinates before every convolution, with self-attention (Appendix D.4)."""

from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import SpectralConv2d, spectral_norm
from lorbms_fast.kernels.coord_conv.reference import append_coordinates
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.models.variants import attention


class CoordConv(nn.Module):
    """Append the coordinates x and y and convolve (Liu et al., 2018) by what reads two maps more than the input has."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W) maps and their coordinates."""
        return self.conv(append_coordinates(x))


class Discriminator(attention.Discriminator):
    """The PatchGAN of Table 3.5 with a CoordConv for each convolution and self-attention after the first."""

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__(config, normalize)
        width = config.discriminator_width
        self.conv1 = CoordConv(nn.Conv2d(3 + 2, width, 4, stride=2, padding=1))
        self.conv2 = CoordConv(SpectralConv2d(width + 2, 2 * width, 4, stride=2, normalize=normalize))
        self.conv3 = CoordConv(SpectralConv2d(2 * width + 2, 4 * width, 4, stride=2, normalize=normalize))
        self.conv4 = CoordConv(SpectralConv2d(4 * width + 2, 8 * width, 4, stride=2, normalize=normalize))
        self.conv5 = CoordConv(nn.Conv2d(8 * width + 2, 1, 1))
