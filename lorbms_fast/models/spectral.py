"""The spectrally normalized weights of a whole network at once."""

from torch import Tensor, nn

from lorbms_fast.kernels import spectral_norm, spectral_norm_all
from lorbms_fast.reference.layers import SpectralWeight


def normalized_weights(network: nn.Module) -> dict[str, Tensor]:
    """Compute W / sigma of every spectrally normalized layer, by the layer's name."""
    layers = spectral_layers(network)
    if any(layer.normalize is not spectral_norm for layer in layers.values()):
        return {name: layer.normalized() for name, layer in layers.items()}
    weights = spectral_norm_all([layer.weight for layer in layers.values()], [layer.u for layer in layers.values()])
    return dict(zip(layers, weights, strict=True))


def unnormalized(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Stand in for the spectral norm where there is none: the weight as it is, sigma 1."""
    return weight, weight.new_ones(())


def advance_u(network: nn.Module) -> None:
    """Move the u of every spectrally normalized layer on by one step of the power iteration."""
    for layer in spectral_layers(network).values():
        layer.advance_u()


def spectral_layers(network: nn.Module) -> dict[str, SpectralWeight]:
    """Find every spectrally normalized layer of a network by its name."""
    return {name: layer for name, layer in network.named_modules() if isinstance(layer, SpectralWeight)}
