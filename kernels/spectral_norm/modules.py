"""Layers with a spectrally normalized weight (Miyato et al., 2018)."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from lorbms_fast.kernels._common.dispatch import Impl, checked_impl
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels.spectral_norm.functional import advance_u, spectral_norm_all
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm

Normalize = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Function `(weight, u) -> (weight / sigma, sigma)`; it decides whether u' and v are constants in the backward."""


class SpectralNorm(nn.Module):
    """Mixin for a layer that is to use its weight divided by the weight's largest singular value.

    `u`, a buffer, is the persistent vector of its estimate. It moves when `advance_all_u` says so, not at every call.

    >>> class Linear(SpectralNorm, nn.Linear):
    ...     def forward(self, x):
    ...         return F.linear(x, self.normalized(), self.bias)
    >>> layer = Linear(3, 4)
    >>> torch.testing.assert_close(layer.normalized(), spectral_norm(layer.weight, layer.u)[0])

    Args:
        args: of the layer.
        normalize: `spectral_norm`, or another function like it.
        impl: form to run; None takes the one in force.
        kwargs: of the layer.
    """

    weight: Any
    u: Tensor
    W_bar: Tensor | None = None
    """W / sigma, while `passes` runs the layer."""

    def __init__(
        self, *args: Any, normalize: Normalize = spectral_norm, impl: Impl | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("u", self.weight.new_empty(1, self.weight.shape[0]).normal_())
        self.normalize, self.impl = normalize, checked_impl(impl)

    def normalized(self) -> Tensor:
        """W / sigma, of the weight's shape."""
        return normalized_weights([self])[0] if self.W_bar is None else self.W_bar


class SpectralConv2d(SpectralNorm, nn.Conv2d):
    """A convolution with a spectrally normalized weight, padded on all sides by half of what its taps reach.

    That is TensorFlow's SAME for odd kernels at stride 1, and for even ones at stride 2 of an even height and width. An
    even kernel at stride 1 makes maps a row and a column smaller; an odd one at stride 2 is padded before as well,
    where TensorFlow pads more after.

    >>> SpectralConv2d(3, 4, kernel_size=4, stride=2)(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 4, 4, 4])

    Args:
        in_channels: maps of the input.
        out_channels: maps it makes.
        kernel_size: of the kernel, a number or two.
        stride: likewise.
        options: the other ones of `torch.nn.Conv2d` but padding, which is `dilation * (kernel_size - 1) // 2`;
            `normalize` and `impl`, see `SpectralNorm`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1, **options: Any,
    ) -> None:  # fmt: skip
        sides = zip(_pair(options.get("dilation", 1)), _pair(kernel_size), strict=True)
        padding = tuple(dilation * (taps - 1) // 2 for dilation, taps in sides)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=padding, **options)

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H', W'), as torch's convolution with that padding."""
        return self._conv_forward(input, self.normalized(), self.bias)


def weight_of(layer: nn.Module) -> Tensor:
    """The weight that a layer uses: normalized, if it is to be."""
    weight: Any = layer.normalized() if isinstance(layer, SpectralNorm) else layer.weight
    return weight


def unnormalized(weight: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Stand in for the spectral norm where there is to be none: the weight as it is, sigma 1."""
    return weight, weight.new_ones(())


def normalized_weights(layers: Sequence[SpectralNorm]) -> list[Tensor]:
    """W / sigma of each layer, together where all are normalized in one way."""
    if {(layer.normalize, layer.impl) for layer in layers} == {(spectral_norm, layers[0].impl)}:
        return spectral_norm_all([layer.weight for layer in layers], [layer.u for layer in layers], layers[0].impl)
    return [layer.normalize(layer.weight, layer.u)[0] for layer in layers]


def spectral_layers(network: nn.Module) -> list[SpectralNorm]:
    """List the layers of a network with a spectrally normalized weight."""
    return [layer for layer in network.modules() if isinstance(layer, SpectralNorm)]


def advance_all_u(network: nn.Module, steps: int = 1) -> None:
    """Move every u of a network on by steps of the power iteration: after each update of its weights.

    >>> layer = SpectralConv2d(3, 4, kernel_size=3)
    >>> advance_all_u(layer, steps=200)
    >>> torch.linalg.matrix_norm(layer.normalized().flatten(1), 2).round(decimals=3).item()
    1.0

    Args:
        network: any; one without such layers is left alone.
        steps: how many.
    """
    if layers := spectral_layers(network):
        weights, us = [layer.weight for layer in layers], [layer.u for layer in layers]
        for _ in range(steps):
            advance_u(weights, us, layers[0].impl)
