"""The decoders that the calibration compares. A new one is a function and a line in `DECODERS`."""

import math
from collections.abc import Callable

import torch
from torch import Generator, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm
from lorbms_fast.models import fast
from lorbms_fast.models.spectral import unnormalized
from lorbms_fast.models.variants import transposed_decoder
from lorbms_fast.reference.layers import SpectralWeight, TransitionUp

DECODERS: dict[str, Callable[[ModelConfig], nn.Module]] = {
    "resize-sn": lambda config: fast.Decoder(config, spectral_norm),
    "resize": lambda config: fast.Decoder(config, unnormalized),
    "transposed-sn": lambda config: transposed_decoder.Decoder(config, spectral_norm),
    "transposed": lambda config: transposed_decoder.Decoder(config, unnormalized),
}


@torch.no_grad()
def start_without_norm(decoder: nn.Module, seed: int) -> None:
    """Initialise layers that no norm rescales: weights from N(0, 2 / fan in) (He et al., 2015), in place.

    The thesis's initial values lean on the spectral norm, which makes any scale 1. A transposed convolution of stride
    2 reads 9/4 taps for an output pixel on average, not 9.
    """
    transposed = isinstance(decoder, transposed_decoder.Decoder)
    for i, layer in enumerate(decoder.modules()):
        if isinstance(layer, SpectralWeight) and layer.normalize is unnormalized:
            fan_in = layer.weight[0].numel() / (4 if transposed and isinstance(layer, TransitionUp) else 1)
            layer.weight.normal_(0, math.sqrt(2 / fan_in), generator=Generator().manual_seed(1_000 * seed + i))
