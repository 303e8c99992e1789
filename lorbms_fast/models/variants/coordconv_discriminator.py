"""A discriminator whose first convolution reads coordinates too (CoordConv, Liu et al., 2018)."""

from dataclasses import replace

from torch import Tensor, nn

from lorbms_fast.config import ModelConfig, TrainConfig
from lorbms_fast.kernels.coord_conv.definition import append_coordinates
from lorbms_fast.kernels.spectral_norm.definition import spectral_norm
from lorbms_fast.models import fast
from lorbms_fast.reference.layers import SpectralNorm


class Discriminator(fast.Discriminator):
    """The PatchGAN of Table 3.5 on five channels: colours, x and y."""

    def __init__(self, config: ModelConfig, normalise: SpectralNorm = spectral_norm) -> None:
        super().__init__(config, normalise)
        self.conv1 = nn.Conv2d(3 + 2, config.discriminator_width, 4, stride=2, padding=1)

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) images in [-1, 1] -> (N, 8 width, S/16, S/16)."""
        return super().features(append_coordinates(images))


def settings(config: TrainConfig) -> TrainConfig:
    """Another discriminator."""
    return replace(config, model=replace(config.model, discriminator="coordconv-discriminator"))
