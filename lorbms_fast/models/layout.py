"""Every layer of a network with the shapes that pass through it and the parameters it holds."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Layer(NamedTuple):
    """A module that holds parameters itself."""

    name: str
    kind: str
    output: tuple[int, ...]
    """Shape of what it makes for one sample: C, H, W for maps; () where only its weights were used."""
    parameters: int


def layout(network: nn.Module, *inputs: Tensor) -> list[Layer]:
    """Run a network once, on a batch, and list its layers in the order they compute, with trainable parameters."""
    layers: list[Layer] = []
    hooks = []
    owned = {}
    for name, module in network.named_modules():
        own = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        if own:
            owned[name] = Layer(name, type(module).__name__, (), own)

            def note(module: nn.Module, _: object, output: Tensor, name: str = name, own: int = own) -> None:
                layers.append(Layer(name, type(module).__name__, tuple(output.shape[1:]), own))

            hooks.append(module.register_forward_hook(note))
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    called = {layer.name for layer in layers}
    return layers + [layer for name, layer in owned.items() if name not in called]
