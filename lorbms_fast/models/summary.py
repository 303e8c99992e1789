"""Summary of the networks of some settings: layers, parameters, receptive fields."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from lorbms_fast.config import ModelConfig
from lorbms_fast.models import build
from lorbms_fast.models.receptive_field import receptive_field, sees_everything, windows_of
from lorbms_fast.models.variants import images_at_once
from lorbms_fast.reference.classifier import PAIR


class Layer(NamedTuple):
    """A module that holds parameters itself."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Shape of what it makes for one sample: C, H, W for maps; () where only its weights were used."""
    parameters: int


def layout(network: nn.Module, *inputs: Tensor) -> list[Layer]:
    """Run a network once, on a batch, and list its layers in the order they compute, with trainable parameters."""
    owned = {
        module: Layer(name, type(module).__name__, (), own)
        for name, module in network.named_modules()
        if (own := sum(parameter.numel() for parameter in module.parameters(recurse=False)))
    }
    layers: list[Layer] = []

    def note(module: nn.Module, _inputs: object, output: Tensor) -> None:
        if module in owned:
            layers.append(owned[module]._replace(output=tuple(output.shape[1:])))

    with register_module_forward_hook(note), torch.no_grad():
        network(*inputs)
    called = {layer.name for layer in layers}
    return layers + [layer for layer in owned.values() if layer.name not in called]


def describe(config: ModelConfig) -> dict[str, list[Layer]]:
    """List the layers of all four networks, as the reference computes them."""
    networks = build(config, "reference")
    image = torch.zeros(1, 3, config.image_size, config.image_size)
    code = networks.enc(image)
    beside = (images_at_once(config.classifier) or PAIR) - 1  # images that the classifier sees beside the mixed one
    return {
        "encoder": layout(networks.enc, image),
        "decoder": layout(networks.dec, code),
        "discriminator": layout(networks.dsc, image),
        "classifier": layout(networks.cls, image, image[:, :1].expand(-1, 3 * beside, -1, -1)),
    }


def receptive_fields(config: ModelConfig) -> dict[str, int]:
    """Compute encoder's and discriminator's in pixels; the thesis counts the encoder's from its second layer on."""
    networks = build(config, "reference")
    image = torch.zeros(1, 3, config.image_size, config.image_size)
    fields: dict[str, int] = {}
    if not sees_everything(networks.enc):
        windows = windows_of(networks.enc, image)
        fields |= {"encoder": receptive_field(windows), "encoder, from its second layer": receptive_field(windows[1:])}
    if not sees_everything(networks.dsc):
        fields["discriminator"] = receptive_field(windows_of(networks.dsc, image))
    return fields


def totals(networks: dict[str, list[Layer]]) -> dict[str, int]:
    """Count trainable parameters of each network, of the generator (encoder and decoder), and of all."""
    counts = {name: sum(layer.parameters for layer in layers) for name, layers in networks.items()}
    return counts | {"generator": counts["encoder"] + counts["decoder"], "total": sum(counts.values())}
