"""The decoders that the calibration compares. A new one is a function and a line in `DECODERS`."""

import math
from collections.abc import Callable

import torch
from torch import Generator, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import SpectralNorm, spectral_norm
from lorbms_fast.kernels.spectral_norm.modules import unnormalized
from lorbms_fast.models import decoder
from lorbms_fast.models.variants import transposed_decoder

DECODERS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "resize-sn": lambda config: decoder.Decoder(config, spectral_norm),
    "resize": lambda config: decoder.Decoder(config, unnormalized),
    "transposed-sn": lambda config: transposed_decoder.Decoder(config, spectral_norm),
    "transposed": lambda config: transposed_decoder.Decoder(config, unnormalized),
}


@torch.no_grad()
def start_without_norm(network: nn.Module, seed: int) -> None:
    """Initialise layers that no norm rescales: weights from N(0, 2 / fan in) (He et al., 2015), in place.

    The thesis's initial values lean on the spectral norm, which makes any scale 1. A transposed convolution of stride
    2 reads 9/4 taps for an output pixel on average, not 9.
    """
    for i, layer in enumerate(network.modules()):
        if isinstance(layer, SpectralNorm) and layer.normalize is unnormalized:
            fan_in = layer.weight[0].numel() / (4 if isinstance(layer, transposed_decoder.TransposedConv2d) else 1)
            layer.weight.normal_(0, math.sqrt(2 / fan_in), generator=Generator().manual_seed(1_000 * seed + i))
