"""Self-attention (SAGAN; Zhang et al., 2019) in decoder and discriminator, where maps are half as wide as the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import SpectralConv2d, spectral_norm
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.models import decoder, discriminator
from lorbms_fast.models.initial_values import Rule, constant

NARROWER = 8
"""Ratio of the number of x's maps to that of queries, keys and values."""
STAGE = 4
"""Stage of the decoder whose new maps are attended to, which the last stage reads."""

INITIAL_VALUES: dict[str, Rule] = {r".*\.attention\.gamma": constant(0)}


class SelfAttention(nn.Module):
    """`y = x + gamma v(sum_i softmax_i(f(x_i)^T g(x_j)) h(x_i))`: every position reads all others.

    f, g, h and v are spectrally normalized 1x1 convolutions; gamma begins at 0, so that the network begins without.
    """

    def __init__(self, channels: int, normalize: Normalize = spectral_norm) -> None:
        super().__init__()
        inner = max(1, channels // NARROWER)
        self.f = SpectralConv2d(channels, inner, 1, normalize=normalize)
        self.g = SpectralConv2d(channels, inner, 1, normalize=normalize)
        self.h = SpectralConv2d(channels, inner, 1, normalize=normalize)
        self.v = SpectralConv2d(inner, channels, 1, normalize=normalize)
        self.gamma = nn.Parameter(torch.empty(()))

    def forward(self, x: Tensor) -> Tensor:
        """Add to (N, C, H, W) maps what every position reads of all others."""
        # (N, 1, positions, channels): ONNX wants an axis of heads.
        f, g, h = (part(x).flatten(2).transpose(1, 2).unsqueeze(1) for part in (self.f, self.g, self.h))
        o = F.scaled_dot_product_attention(g, f, h, scale=1.0).squeeze(1)
        return x + self.gamma * self.v(o.transpose(1, 2).unflatten(2, x.shape[2:]))


class Decoder(decoder.Decoder):
    """The decoder of Table 3.3 with self-attention on the new maps of its fourth stage."""

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__(config, normalize)
        self.attention = SelfAttention(config.layers[-STAGE] * config.growth, normalize)

    def stage(self, b: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute transition up b, (N, width, 2 H, 2 W), and the new maps of the dense block behind it."""
        x, new_maps = super().stage(b, x)
        return x, self.attention(new_maps) if b == STAGE else new_maps


class Discriminator(discriminator.Discriminator):
    """The PatchGAN of Table 3.5 with self-attention after its first convolution."""

    sees_everything = True

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__(config, normalize)
        self.attention = SelfAttention(config.discriminator_width, normalize)

    def first_maps(self, images: Tensor) -> Tensor:
        """Compute the second convolution's input, (N, width, S/2, S/2)."""
        return self.attention(super().first_maps(images))
