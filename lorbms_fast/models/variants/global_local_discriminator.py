"""A discriminator that judges every quadrant in the light of the whole image (after Iizuka et al., 2017)."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig, TrainConfig
from lorbms_fast.kernels.spectral_norm.definition import spectral_norm
from lorbms_fast.models import fast
from lorbms_fast.reference.layers import SpectralNorm


class Discriminator(nn.Module):
    """A global and a local network like the PatchGAN's convolutions; one logit from both for each quadrant.

    The global one sees the image, the local one a quadrant at a time. What they say is averaged over positions, put
    side by side and weighed by one linear layer, as in image completion the local region's and the whole image's.
    """

    sees_everything = True

    def __init__(self, config: ModelConfig, normalise: SpectralNorm = spectral_norm) -> None:
        super().__init__()
        self.whole = _Convolutions(config, normalise)
        self.local = _Convolutions(config, normalise)
        self.weigh = nn.Linear(2 * 8 * config.discriminator_width, 1)

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) images in [-1, 1] -> (N, 8 width, S/16, S/16): what the global network says."""
        return self.whole.features(images)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) images in [-1, 1] -> (N, 1, 2, 2) logits, one a quadrant, positive for real."""
        half = images.shape[-1] // 2
        quadrants = images.unfold(2, half, half).unfold(3, half, half).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        local = self.local.features(quadrants).mean((2, 3)).unflatten(0, (-1, 4))
        whole = self.features(images).mean((2, 3))[:, None].expand_as(local)
        logits: Tensor = self.weigh(torch.cat([whole, local], dim=2))
        return logits.unflatten(1, (1, 2, 2)).squeeze(4)


class _Convolutions(fast.Discriminator):
    """The PatchGAN without its last convolution."""

    def __init__(self, config: ModelConfig, normalise: SpectralNorm) -> None:
        super().__init__(config, normalise)
        del self.conv5


def settings(config: TrainConfig) -> TrainConfig:
    """Another discriminator."""
    return replace(config, model=replace(config.model, discriminator="global-local-discriminator"))
