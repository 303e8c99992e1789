"""Dense blocks (Huang et al., 2017) as functions, of weights and biases or of packed layers."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lorbms_fast.kernels._common.autocast import compute_dtype, refuse_integers
from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check_number
from lorbms_fast.kernels.dense_block import fused, reference
from lorbms_fast.kernels.dense_block.packed_layers import PackedLayers, pack_layers
from lorbms_fast.kernels.dense_block.reference import BlockActivation, activation_of, checked_activation

if HAS_TRITON:
    from lorbms_fast.kernels.dense_block.triton import ops as triton_ops
    from lorbms_fast.kernels.dense_block.triton import sizes as triton_sizes


def _variants(
    x: Tensor, weights: Sequence[Tensor] | PackedLayers, biases: Sequence[Tensor] = (),
    activation: BlockActivation = "relu", eps: float = 1e-5,
) -> dict[str, Callable[[], None]]:  # fmt: skip
    maps = len(weights.biases) if isinstance(weights, PackedLayers) else sum(map(len, biases))
    return triton_sizes.variants(x, maps, activation)


@operation(variants=_variants)
def dense_block(
    x: Tensor, weights: Sequence[Tensor] | PackedLayers, biases: Sequence[Tensor] = (),
    activation: BlockActivation = "relu", eps: float = 1e-5, impl: Impl | None = None,
) -> Tensor:  # fmt: skip
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
    packed = _packed(x, weights, biases, activation, eps, impl)
    if packed.form == "reference":
        return reference.dense_block(x, packed.weights, packed.biases, activation_of(activation != "relu", eps))
    return torch.cat([x, _new_maps(x, packed, activation, eps)], 1)


@operation(variants=_variants)
def dense_block_maps(
    x: Tensor, weights: Sequence[Tensor] | PackedLayers, biases: Sequence[Tensor] = (),
    activation: BlockActivation = "relu", eps: float = 1e-5, impl: Impl | None = None,
) -> Tensor:  # fmt: skip
    """Compute only the new maps of `dense_block`: (N, L * growth, H, W). Arguments and errors are its own.

    >>> weights = [torch.randn(4, 8, 3, 3), torch.randn(4, 12, 3, 3)]
    >>> biases = [torch.zeros(4), torch.zeros(4)]
    >>> x = torch.randn(2, 8, 10, 10)
    >>> torch.equal(dense_block_maps(x, weights, biases), dense_block(x, weights, biases)[:, 8:])
    True
    """
    packed = _packed(x, weights, biases, activation, eps, impl)
    if packed.form == "reference":
        stack = reference.dense_block(x, packed.weights, packed.biases, activation_of(activation != "relu", eps))
        return stack[:, x.shape[1] :]
    return _new_maps(x, packed, activation, eps)


@operation(variants=_variants)
def dense_block_activated(
    x: Tensor, weights: Sequence[Tensor] | PackedLayers, biases: Sequence[Tensor] = (),
    activation: BlockActivation = "relu", eps: float = 1e-5, impl: Impl | None = None,
) -> Tensor:  # fmt: skip
    """`activation(dense_block(x, ...))`, where the fast form has all of it already but for the last layer's maps.

    Arguments, dtypes and errors are those of `dense_block`.

    >>> weights = [torch.randn(4, 8, 3, 3), torch.randn(4, 12, 3, 3)]
    >>> biases = [torch.zeros(4), torch.zeros(4)]
    >>> x = torch.randn(2, 8, 10, 10)
    >>> y = dense_block_activated(x, weights, biases)
    >>> torch.testing.assert_close(y, dense_block(x, weights, biases).relu())
    """
    w, b, layers, kernel_size, form, _ = _packed(x, weights, biases, activation, eps, impl)
    if form == "reference":
        function = activation_of(activation != "relu", eps)
        return function(reference.dense_block(x, w, b, function))
    if form == "triton":
        return triton_ops.activated(x, w, b, layers, kernel_size, activation, eps)
    return fused.activated(x, w, b, activation, eps)


def _packed(
    x: Tensor, weights: Sequence[Tensor] | PackedLayers, biases: Sequence[Tensor], activation: BlockActivation,
    eps: float, impl: Impl | None,
) -> PackedLayers:  # fmt: skip
    checked_activation(activation)
    check_number("eps", eps)
    refuse_integers(x)
    packed = weights
    if not isinstance(packed, PackedLayers):
        (packed,) = pack_layers([(packed, biases)], compute_dtype(x), select_impl(impl, x))
    elif impl not in (None, "auto", packed.form) and packed.form != "reference":
        (packed,) = pack_layers([packed.unpacked()], packed.dtype, impl)
    packed.check(x)
    return packed


def _new_maps(x: Tensor, packed: PackedLayers, activation: BlockActivation, eps: float) -> Tensor:
    w, b, layers, kernel_size, form, _ = packed
    if form == "triton":
        return triton_ops.maps(x, w, b, layers, kernel_size, activation, eps)
    return fused.maps(x, w, b, activation, eps)
