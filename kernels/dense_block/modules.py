"""The dense block as a layer."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from lorbms_fast.kernels._common.dispatch import Impl, checked_impl
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.packing import Packing
from lorbms_fast.kernels._common.unbatched import takes_one
from lorbms_fast.kernels.dense_block.functional import dense_block, dense_block_maps
from lorbms_fast.kernels.dense_block.packed_layers import PackedLayers, pack_layers
from lorbms_fast.kernels.dense_block.reference import BlockActivation, checked_activation
from lorbms_fast.kernels.spectral_norm.modules import weight_of


class DenseBlock(Packing):
    """A dense block with its parameters: `layer0.weight`, `layer0.bias`, `layer1.weight`, ...

    >>> block = DenseBlock(8, num_layers=3, growth_rate=4, activation="instance_norm_relu")
    >>> block(torch.randn(2, 8, 10, 10)).shape
    torch.Size([2, 20, 10, 10])

    Args:
        in_channels: maps of the input.
        num_layers: how many layers; `layers` is its old name.
        growth_rate: maps each layer appends; `growth` is its old name.
        activation: ReLU, or instance norm without parameters and ReLU, before each convolution.
        kernel_size: odd.
        eps: of the instance norm.
        conv: makes a layer's convolution from (in_channels, out_channels, kernel_size): torch's, or `SpectralConv2d`.
            The block reads its weight and its bias, and pads with zeros to keep height and width.
        impl: form to run; None takes the one in force.

    Raises:
        ValueError: no layers or no maps, an even kernel, no such activation or form, or a convolution with options that
            the block would not honor.
        TypeError: `num_layers` is missing, or given twice.
    """

    def __init__(
        self, in_channels: int, num_layers: int | None = None, growth_rate: int | None = None, *,
        activation: BlockActivation = "relu", kernel_size: int = 3, eps: float = 1e-5,
        conv: Callable[[int, int, int], nn.Module] = nn.Conv2d, impl: Impl | None = None, layers: int | None = None,
        growth: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        num_layers = _renamed("layers", layers, "num_layers", num_layers)
        growth_rate = _renamed("growth", growth, "growth_rate", growth_rate)
        if num_layers is None:
            raise TypeError("DenseBlock needs num_layers")
        growth_rate = 16 if growth_rate is None else growth_rate
        if num_layers < 1 or growth_rate < 1:
            raise ValueError(f"num_layers {num_layers}, growth_rate {growth_rate}: one layer at least, of one map")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is even: height and width could not stay as they are")
        self.activation: BlockActivation = checked_activation(activation)
        self.eps, self.impl = eps, checked_impl(impl)
        for i in range(num_layers):
            layer = conv(in_channels + i * growth_rate, growth_rate, kernel_size)
            _refuse_options(layer, kernel_size)
            self.add_module(f"layer{i}", layer)

    @leaf
    @takes_one
    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, in_channels + num_layers * growth_rate, H, W); or both without N."""
        weights, biases = self.layers()
        return dense_block(input, weights, biases, self.activation, self.eps, self.impl)

    def new_maps(self, x: Tensor) -> Tensor:
        """Compute only the layer's new maps: (N, num_layers * growth_rate, H, W)."""
        weights, biases = self.layers()
        return dense_block_maps(x, weights, biases, self.activation, self.eps, self.impl)

    def layers(self) -> tuple[list[Tensor] | PackedLayers, Sequence[Any]]:
        """The layers' weights and biases, as functions take them."""
        if self.packed is not None:
            return self.packed, ()
        return [weight_of(layer) for layer in self.children()], [layer.bias for layer in self.children()]

    @classmethod
    def pack(cls, layers: Sequence[Any]) -> list[PackedLayers]:
        """Pack the layers of several blocks: on CUDA a few launches for all of them."""
        return pack_layers([block.layers() for block in layers], impl=layers[0].impl)


def _refuse_options(conv: nn.Module, kernel_size: int) -> None:
    """Raise ValueError unless a convolution computes what a block makes of its weight and bias; torch's pads by 0."""
    if getattr(conv, "bias", None) is None:
        raise ValueError(f"conv makes {conv}: a dense block's convolutions have a bias")
    honored: dict[str, tuple[Any, ...]] = {
        "stride": ((1, 1),), "dilation": ((1, 1),), "groups": (1,), "padding_mode": ("zeros",),
        "padding": ((0, 0), (kernel_size // 2,) * 2, "same"),
    }  # fmt: skip
    for option, values in honored.items():
        if (value := getattr(conv, option, values[0])) not in values:
            known = " or ".join(map(repr, dict.fromkeys(values)))
            raise ValueError(f"conv makes {conv}: {option} {value!r}, a dense block honors {known} alone")


def _renamed(old: str, old_value: int | None, new: str, value: int | None) -> int | None:
    """A keyword's value, given by its new name or its old."""
    if old_value is None:
        return value
    if value is not None:
        raise TypeError(f"{new} was given twice, also by its old name {old}")
    warnings.warn(f"{old} is now called {new}", DeprecationWarning, stacklevel=3)
    return old_value
