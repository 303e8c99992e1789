"""The four networks, by the way they compute, `reference` or `fast`. Same parameters, same names.

Networks that a variant of Appendix D brings along have one class for both.
"""

from typing import Any

import torch

from lorbms_fast import reference
from lorbms_fast.config import Impl, ModelConfig
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm
from lorbms_fast.models import fast, variants
from lorbms_fast.models.initial_values import initialize
from lorbms_fast.reference.layers import SpectralNorm
from lorbms_fast.types import Networks


def build(config: ModelConfig, impl: Impl, seed: int = 0, normalize: SpectralNorm = spectral_norm) -> Networks:
    """Make the networks with the initial values of the thesis, in float32 on the CPU.

    Args:
        config: their sizes.
        impl: which form computes; parameters, names and initial values do not depend on it.
        seed: of the initial values.
        normalize: the spectral normalization, `spectral_norm` or `spectral_norm_through`.

    Raises:
        UserError: a variant is named that has no network of that kind.
    """
    networks = Networks(
        _network("Encoder", config.encoder, impl)(config),
        _network("Decoder", config.decoder, impl)(config, normalize),
        _network("Discriminator", config.discriminator, impl)(config, normalize),
        _network("Classifier", config.classifier, impl)(config),
    )
    initialize(networks, seed, variants.initial_values(config))
    # The fast form's maps are channels_last; so are its kernels, or every convolution would convert them.
    if impl != "reference":
        for tensor in networks.parameters():
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return networks


def _network(kind: variants.Kind, name: str, impl: Impl) -> Any:
    """Find the class of a network: the thesis's in the form asked for, or a variant's."""
    if name == "thesis":
        return getattr(reference if impl == "reference" else fast, kind)
    return variants.network(kind, name)
