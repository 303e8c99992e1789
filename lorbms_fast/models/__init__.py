"""The four networks, by the way they compute, `reference` or `fast`. Same parameters, same names.

The discriminator, torch's own convolutions, and networks that a variant of Appendix D brings along have one class for
both.
"""

from typing import Any

import torch

from lorbms_fast import reference
from lorbms_fast.config import Impl, ModelConfig
from lorbms_fast.kernels import spectral_norm
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.models import variants
from lorbms_fast.models.classifier import Classifier
from lorbms_fast.models.decoder import Decoder
from lorbms_fast.models.discriminator import Discriminator
from lorbms_fast.models.encoder import Encoder
from lorbms_fast.models.initial_values import initialize
from lorbms_fast.types import Networks

_THESIS: dict[Impl, dict[variants.Kind, Any]] = {
    "reference": {
        "Encoder": reference.Encoder,
        "Decoder": reference.Decoder,
        "Discriminator": Discriminator,
        "Classifier": reference.Classifier,
    },
    "fast": {"Encoder": Encoder, "Decoder": Decoder, "Discriminator": Discriminator, "Classifier": Classifier},
}


def build(config: ModelConfig, impl: Impl, seed: int = 0, normalize: Normalize = spectral_norm) -> Networks:
    """Make the networks with the initial values that the config asks for, in float32 on the CPU.

    Parameters, names and initial values do not depend on the form, `impl`. `normalize` is `spectral_norm` or
    `spectral_norm_through`. Raises UserError if a variant is named that has no network of that kind.
    """

    def kind(name: variants.Kind, variant: str) -> Any:
        return _THESIS[impl][name] if variant == "thesis" else variants.network(name, variant)

    networks = Networks(
        kind("Encoder", config.encoder)(config),
        kind("Decoder", config.decoder)(config, normalize),
        kind("Discriminator", config.discriminator)(config, normalize),
        kind("Classifier", config.classifier)(config),
    )
    initialize(networks, seed, variants.initial_values(config))
    if impl == "reference":
        for layer in networks.modules():
            if hasattr(layer, "impl"):
                layer.impl = "reference"  # type: ignore[assignment]
    else:
        # The fast form's maps are channels_last; so are its kernels, or every convolution would convert them.
        for tensor in networks.parameters():
            if tensor.dim() == 4:
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return networks
