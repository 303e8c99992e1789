"""The layers of a dense block, packed as one form reads them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Form, Impl, select_impl
from lorbms_fast.kernels._common.shapes import check_device, check_maps, misfit, unless_traced
from lorbms_fast.kernels.dense_block import fused
from lorbms_fast.kernels.dense_block.system import System

if HAS_TRITON:
    from lorbms_fast.kernels.dense_block.triton import ops as triton_ops


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
        """The dtype that convolutions compute in."""
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
            weights = System(self.weights).weights()
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

    >>> from lorbms_fast.kernels import dense_block
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
