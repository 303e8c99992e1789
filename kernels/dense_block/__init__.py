"""Dense blocks (Huang et al., 2017) whose layers share one activation without parameters.

A block's weights and biases are given as sequences, or packed, which the fast forms would do with them first. Several
calls with the same parameters share that work, and what autograd adds up, if all are given what `pack_layers` makes.
It holds copies: after parameters have changed, pack again.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from lorbms_fast.kernels._common.autocast import compute_dtype, refuse_integers
from lorbms_fast.kernels._common.dispatch import TRITON, Form, Impl, checked_impl, select_impl
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.packing import Packing
from lorbms_fast.kernels._common.shapes import check_device, check_maps, misfit, unless_traced
from lorbms_fast.kernels._common.unbatched import takes_one
from lorbms_fast.kernels.dense_block import fused, reference
from lorbms_fast.kernels.spectral_norm.modules import weight_of

if TRITON:
    from lorbms_fast.kernels.dense_block.triton import ops as triton_ops

ActivationName = Literal["relu", "instance_norm_relu"]


class PackedLayers(NamedTuple):
    """Weights and biases of a dense block's layers as one form reads them; `pack_layers` makes it.

    Give it to `dense_block` in the place of weights. Its tensors depend on the parameters, and gradients go through
    them to these; `in_channels` and `maps` say of which maps it makes how many.
    """

    weights: Any
    """L tensors; in the Triton form one."""
    biases: Any
    """One tensor; in the reference form, which packs nothing, L of them."""
    layers: int
    kernel_size: int
    form: Form
    asked: Impl | None = None
    """What the caller of `pack_layers` asked for."""

    @property
    def dtype(self) -> torch.dtype:
        """That convolutions compute in."""
        return self.first.dtype

    @property
    def first(self) -> Tensor:
        """One of the weights; all have its dtype and device."""
        first: Tensor = self.weights if isinstance(self.weights, Tensor) else self.weights[0]
        return first

    @property
    def in_channels(self) -> int:
        """C, maps of the block's input."""
        if self.form == "triton":
            return triton_ops.in_channels(self.weights, len(self.biases), self.layers, self.kernel_size)
        return self.first.shape[1]

    @property
    def maps(self) -> int:
        """L * growth, new ones."""
        return sum(map(len, self.biases)) if self.form == "reference" else len(self.biases)

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless the layers can read x."""
        check_maps(x, self.in_channels)
        check_device("weights", self.first, x)
        for bias in (self.biases,) if isinstance(self.biases, Tensor) else self.biases:
            check_device("biases", bias, x)

    def signature(self) -> tuple[Any, ...]:
        """Describe the layers, whichever form reads them."""
        return self.layers, self.kernel_size, len(self.biases), self.dtype

    def unpacked(self) -> tuple[list[Tensor], list[Tensor]]:
        """Give weights and biases of a fast form again."""
        maps = len(self.biases)
        growth = maps // self.layers
        if self.form == "fused":
            weights = fused.System(self.weights).weights()
        else:
            weights = triton_ops.unpack(self.weights, maps, self.layers, self.kernel_size)
        return weights, list(self.biases.split(growth))

    def recipe(self) -> tuple[Callable[..., "PackedLayers"], list[Tensor]]:
        """Give a function that packs tensors in a form, and the tensors."""
        weights, biases = self.unpacked()
        return _packed_again, [*weights, *biases]


def _packed_again(tensors: Sequence[Tensor], impl: Impl) -> PackedLayers:
    return pack_layers([(tensors[: len(tensors) // 2], tensors[len(tensors) // 2 :])], impl=impl)[0]


def pack_layers(
    blocks: Sequence[tuple[Sequence[Tensor], Sequence[Tensor]]],
    dtype: torch.dtype | None = None,
    impl: Impl | None = None,
) -> list[PackedLayers]:
    """Pack the layers of several dense blocks, with differentiable operations: on CUDA a few launches for all of them.

    >>> block = [torch.randn(4, 8, 3, 3)], [torch.zeros(4)]
    >>> (packed,) = pack_layers([block])
    >>> x = torch.randn(2, 8, 10, 10)
    >>> torch.equal(dense_block(x, packed), dense_block(x, *block))
    True

    Args:
        blocks: L weights (growth, C + l * growth, k, k) and L biases (growth,) of each.
        dtype: that convolutions compute in; None takes autocast's inside its context, else the weights' own.
        impl: form to pack for; None takes the one in force.

    Raises:
        ValueError: there are none, or a weight or bias has another shape.
    """
    if not all(weights and len(weights) == len(biases) for weights, biases in blocks) or not blocks:
        layers = [(len(weights), len(biases)) for weights, biases in blocks]
        raise ValueError(f"blocks have {layers} weights and biases: expected one layer at least, and a bias for each")
    first = blocks[0][0][0]
    dtype, form = dtype or compute_dtype(first), select_impl(impl, first)
    for of_block in blocks:
        _refuse_other_shapes(*of_block)
    asked = None if impl == "auto" else impl
    weights: Sequence[Any] = [Ws for Ws, _ in blocks]
    biases: Sequence[Any] = [bs for _, bs in blocks]
    if form != "reference":
        together = torch.cat([b for bs in biases for b in bs])
        biases = (together if form == "triton" else together.to(dtype)).split([sum(map(len, bs)) for bs in biases])
        weights = triton_ops.pack(weights, dtype) if form == "triton" else [fused.pack(Ws, dtype) for Ws in weights]
    return [
        PackedLayers(w, b, len(Ws), Ws[0].shape[-1], form, asked)
        for w, b, (Ws, _) in zip(weights, biases, blocks, strict=True)
    ]


@unless_traced
def _refuse_other_shapes(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    """Raise ValueError unless the shapes are those of one block: loops go by the first weight's."""
    growth, channels, *kernel = weights[0].shape
    if len(kernel) != 2 or kernel[0] != kernel[1] or kernel[0] % 2 == 0:
        raise misfit("the first weight", weights[0], "(growth, C, k, k), k odd")
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        expected = growth, channels + i * growth, *kernel
        if weight.shape != expected or bias.shape != (growth,):
            found = f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)}"
            raise ValueError(f"layer {i} has {found}: expected {expected} and {(growth,)}, by the first weight")
        if not (weight.is_floating_point() and bias.is_floating_point()):
            raise ValueError(f"layer {i} is of {weight.dtype} and {bias.dtype}: expected floating-point numbers")


def _variants(
    x: Tensor, weights: Sequence[Tensor] | PackedLayers, biases: Sequence[Tensor] = (),
    activation: ActivationName = "relu", eps: float = 1e-5,
) -> dict[str, Callable[[], None]]:  # fmt: skip
    maps = len(weights.biases) if isinstance(weights, PackedLayers) else sum(map(len, biases))
    return triton_ops.variants(x, maps, activation)


@operation(variants=_variants)
def dense_block(
    x: Tensor,
    weights: Sequence[Tensor] | PackedLayers,
    biases: Sequence[Tensor] = (),
    activation: ActivationName = "relu",
    eps: float = 1e-5,
    impl: Impl | None = None,
) -> Tensor:
    """Append the maps of L convolutions to x, each reading the activation of x and of all maps before it.

    >>> weights = [torch.randn(4, 8, 3, 3), torch.randn(4, 12, 3, 3)]
    >>> biases = [torch.zeros(4), torch.zeros(4)]
    >>> x = torch.randn(2, 8, 10, 10)
    >>> dense_block(x, weights, biases).shape
    torch.Size([2, 16, 10, 10])

    Args:
        x: (N, C, H, W), floating point; autocast's dtype inside its context, else x's is that of products.
        weights: L kernels (growth, C + l * growth, k, k), k odd; or the packed layers, whose form and dtype then run
            unless `impl` names another, for which they are packed anew. Fast forms cast parameters of another dtype.
        biases: L vectors (growth,); none with packed layers.
        activation: ReLU, or instance norm without parameters and ReLU.
        eps: of the instance norm.
        impl: form to run; None takes the one in force.

    Returns:
        (N, C + L * growth, H, W): x, then each layer's maps, not activated, in the dtype of products.

    Raises:
        ValueError: there is no such activation, or form; or a shape, dtype or device does not fit.
        RuntimeError: x is of whole numbers; or, from the definition, parameters are of another dtype.
    """
    packed = _packed(x, weights, biases, activation, impl)
    if packed.form == "reference":
        return reference.dense_block(x, packed.weights, packed.biases, _function(activation, eps))
    return torch.cat([x, _new_maps(x, packed, activation, eps)], 1)


@operation(variants=_variants)
def dense_block_maps(
    x: Tensor,
    weights: Sequence[Tensor] | PackedLayers,
    biases: Sequence[Tensor] = (),
    activation: ActivationName = "relu",
    eps: float = 1e-5,
    impl: Impl | None = None,
) -> Tensor:
    """Compute only the new maps of `dense_block`: (N, L * growth, H, W). Arguments and errors are its own.

    >>> weights = [torch.randn(4, 8, 3, 3), torch.randn(4, 12, 3, 3)]
    >>> biases = [torch.zeros(4), torch.zeros(4)]
    >>> x = torch.randn(2, 8, 10, 10)
    >>> torch.equal(dense_block_maps(x, weights, biases), dense_block(x, weights, biases)[:, 8:])
    True
    """
    packed = _packed(x, weights, biases, activation, impl)
    if packed.form == "reference":
        stack = reference.dense_block(x, packed.weights, packed.biases, _function(activation, eps))
        return stack[:, x.shape[1] :]
    return _new_maps(x, packed, activation, eps)


@operation(variants=_variants)
def dense_block_activated(
    x: Tensor,
    weights: Sequence[Tensor] | PackedLayers,
    biases: Sequence[Tensor] = (),
    activation: ActivationName = "relu",
    eps: float = 1e-5,
    impl: Impl | None = None,
) -> Tensor:
    """`activation(dense_block(x, ...))`, where the fast form has all of it already but for the last layer's maps.

    Arguments, dtypes and errors are those of `dense_block`.

    >>> weights = [torch.randn(4, 8, 3, 3), torch.randn(4, 12, 3, 3)]
    >>> biases = [torch.zeros(4), torch.zeros(4)]
    >>> x = torch.randn(2, 8, 10, 10)
    >>> y = dense_block_activated(x, weights, biases)
    >>> torch.testing.assert_close(y, dense_block(x, weights, biases).relu())
    """
    w, b, layers, kernel_size, form, _ = _packed(x, weights, biases, activation, impl)
    if form == "reference":
        function = _function(activation, eps)
        return function(reference.dense_block(x, w, b, function))
    if form == "triton":
        return triton_ops.activated(x, w, b, layers, kernel_size, activation, eps)
    return fused.activated(x, w, b, activation, eps)


def _packed(
    x: Tensor, weights: Sequence[Tensor] | PackedLayers, biases: Sequence[Tensor], activation: ActivationName,
    impl: Impl | None,
) -> PackedLayers:  # fmt: skip
    _checked(activation)
    refuse_integers(x)
    packed = weights
    if not isinstance(packed, PackedLayers):
        (packed,) = pack_layers([(packed, biases)], compute_dtype(x), select_impl(impl, x))
    elif impl not in (None, "auto", packed.form) and packed.form != "reference":
        (packed,) = pack_layers([packed.unpacked()], packed.dtype, impl)
    packed.check(x)
    return packed


def _new_maps(x: Tensor, packed: PackedLayers, activation: ActivationName, eps: float) -> Tensor:
    w, b, layers, kernel_size, form, _ = packed
    if form == "triton":
        return triton_ops.maps(x, w, b, layers, kernel_size, activation, eps)
    return fused.maps(x, w, b, activation, eps)


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
        self,
        in_channels: int,
        num_layers: int | None = None,
        growth_rate: int | None = None,
        *,
        activation: ActivationName = "relu",
        kernel_size: int = 3,
        eps: float = 1e-5,
        conv: Callable[[int, int, int], nn.Module] = nn.Conv2d,
        impl: Impl | None = None,
        layers: int | None = None,
        growth: int | None = None,
    ) -> None:
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
        self.activation: ActivationName = _checked(activation)
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


def _checked(activation: ActivationName) -> ActivationName:
    """The activation, if there is one of this name; ValueError if there is none."""
    if activation not in get_args(ActivationName):
        raise ValueError(f"activation '{activation}': choose one of {', '.join(get_args(ActivationName))}")
    return activation


def _function(activation: ActivationName, eps: float) -> reference.Activation:
    return reference.activation_of(activation != "relu", eps)


def _renamed(old: str, old_value: int | None, new: str, value: int | None) -> int | None:
    """A keyword's value, given by its new name or its old."""
    if old_value is None:
        return value
    if value is not None:
        raise TypeError(f"{new} was given twice, also by its old name {old}")
    warnings.warn(f"{old} is now called {new}", DeprecationWarning, stacklevel=3)
    return old_value
