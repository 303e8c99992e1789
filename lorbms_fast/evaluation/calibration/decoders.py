"""The decoders that the calibration compares. A new one is a function and a line in `DECODERS`."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lorbms_fast import reference
from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels.spectral_norm.definition import spectral_norm
from lorbms_fast.models import fast
from lorbms_fast.reference.layers import SpectralNorm, SpectralWeight


class TransposedUp(SpectralWeight):
    """Doubles height and width by a transposed 3x3 convolution of stride 2, without bias."""

    def __init__(self, in_channels: int, out_channels: int, normalise: SpectralNorm) -> None:
        super().__init__((out_channels, in_channels, 3, 3), normalise)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2 H, 2 W)."""
        W = self.normalised().transpose(0, 1)
        return F.conv_transpose2d(x, W, stride=2, padding=1, output_padding=1)


def unnormalised(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Stands in for the spectral norm where there is none: the weight as it is, sigma 1."""
    return weight, weight.new_ones(())


def resize_decoder(config: ModelConfig, normalise: SpectralNorm) -> nn.Module:
    """The thesis's decoder."""
    return fast.Decoder(config, normalise)


def transposed_decoder(config: ModelConfig, normalise: SpectralNorm) -> nn.Module:
    """The thesis's decoder with transposed convolutions instead of resize convolutions."""
    decoder = reference.Decoder(config, normalise)
    channels = config.chunk
    for b, (width, layers) in enumerate(zip(config.decoder_widths, reversed(config.layers), strict=True), start=1):
        decoder.add_module(f"up{b}", TransposedUp(channels, width, normalise))
        channels = layers * config.growth
    return decoder


DECODERS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "resize-sn": lambda config: resize_decoder(config, spectral_norm),
    "resize": lambda config: resize_decoder(config, unnormalised),
    "transposed-sn": lambda config: transposed_decoder(config, spectral_norm),
    "transposed": lambda config: transposed_decoder(config, unnormalised),
}


@torch.no_grad()
def start_without_norm(decoder: nn.Module, seed: int) -> None:
    """Initial weights for layers that no norm rescales: N(0, 2 / fan in) (He et al., 2015), in place.

    The thesis's initial values lean on the spectral norm, which makes any scale 1. A transposed convolution of stride
    2 reads 9/4 taps for an output pixel on average, not 9.
    """
    for i, layer in enumerate(decoder.modules()):
        if isinstance(layer, SpectralWeight) and layer.normalise is unnormalised:
            fan_in = layer.weight[0].numel() / (4 if isinstance(layer, TransposedUp) else 1)
            layer.weight.normal_(0, math.sqrt(2 / fan_in), generator=Generator().manual_seed(1_000 * seed + i))
