"""Several passes of one network with the same parameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.foreach_cast import foreach_cast
from lorbms_fast.kernels._common.grad_fanout import fan_out
from lorbms_fast.kernels._common.packing import Packing
from lorbms_fast.kernels.spectral_norm.modules import normalized_weights, spectral_layers

Pass = Callable[..., Tensor]
"""A network as a function of its inputs, to be called once; `passes` makes several that share packed parameters."""
_constant: dict[nn.Module, tuple[dict[Tensor, int], "_Shared | None"] | None] = {}
"""What was made of networks whose parameters stay as they are; nothing yet, or their versions and what is shared."""


def passes(network: nn.Module, count: int) -> list[Pass]:
    """A network as functions of its input, one for each of several passes that share what parameters alone decide.

    That is packed weights of this package's layers, spectrally normalized ones, and what torch's convolutions and
    linear layers read, in the dtype that autocast computes products in. It is made now, once for all passes, and its
    gradients are added up once. So a pass is good until a parameter changes, or another one is in its place.

    >>> from lorbms_fast.kernels import DenseBlock
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), DenseBlock(8, num_layers=3, growth_rate=4))
    >>> first, second = passes(network, 2)
    >>> loss = first(torch.randn(2, 3, 10, 10)).mean() + second(torch.randn(5, 3, 10, 10)).mean()
    >>> loss.backward()

    Each of the `count` functions is to be called once, and not while another thread runs the network; it raises
    RuntimeError where a parameter has changed in the meantime. A network that torch.compile has taken over is its own
    pass.
    """
    if not isinstance(network, nn.Module):
        raise TypeError(f"passes are of an nn.Module, not of a {type(network).__name__}: call it as it is")
    if count < 0:
        raise ValueError(f"{count} passes: 0 at least")
    known, shared = _constant.get(network) or ({}, None)
    versions = _versions(network)
    trained = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in versions)
    if known != versions or trained:
        shared = _shared(network, shared if known == versions else None)
    if network in _constant and not trained:
        _constant[network] = versions, shared
    if shared is None:
        return [network] * count
    return [partial(_pass, network, versions, of_pass) for of_pass in fan_out(shared, count)]


@contextmanager
def constant(*networks: nn.Module) -> Iterator[None]:
    """Make once, inside the block, what all passes of a network share while its parameters want no gradients.

    A pass of parameters that do makes its own, but for copies in another dtype.

    >>> network = nn.Sequential(nn.Conv2d(3, 8, 3)).requires_grad_(False)
    >>> with constant(network), torch.autocast("cpu", torch.bfloat16):
    ...     for images in torch.randn(2, 1, 3, 8, 8):
    ...         (run,) = passes(network, 1)  # the weight is converted for the first
    ...         y = run(images)
    """
    new = [network for network in networks if network not in _constant]
    _constant.update(dict.fromkeys(new))
    try:
        yield
    finally:
        for network in new:
            del _constant[network]


class _Shared(NamedTuple):
    """Values that a pass reads of the parameters."""

    packed: dict[nn.Module, Any]
    W_bar: dict[nn.Module, Tensor]
    parameters: dict[str, Tensor]
    """All others by name, in the dtype of products where they are read by one."""


def _shared(network: nn.Module, made: _Shared | None) -> _Shared | None:
    """Make it, `made` before without gradients; None if it is just the parameters, or torch.compile sees to it."""
    if network._compiled_call_impl is not None:
        return None
    # All spectral norms of a network at once, and all layers of a kind: on CUDA a few launches, not a few each.
    spectral = spectral_layers(network)
    W_bar: dict[nn.Module, Tensor] = dict(zip(spectral, normalized_weights(spectral) if spectral else (), strict=True))
    packing = [layer for layer in network.modules() if isinstance(layer, Packing)]
    with _set("W_bar", W_bar):
        packed: dict[nn.Module, Any] = {
            layer: made for kind in _kinds(packing) for layer, made in zip(kind, kind[0].pack(kind), strict=True)
        }

    inside = {part for layer in packing for part in layer.modules()}
    normalized = {layer: W for layer, W in W_bar.items() if layer not in inside}
    others = {
        f"{name}.{of_layer}".lstrip("."): (layer, parameter)
        for name, layer in network.named_modules()
        for of_layer, parameter in layer.named_parameters(recurse=False)
        if layer not in inside and not (of_layer == "weight" and layer in normalized)
    }
    known = [*made.W_bar.values(), *made.parameters.values()] if made else []
    read = _as_autocast_would([*normalized.items(), *others.values()], known)
    if not W_bar and not packed and all(own is cast for (_, own), cast in zip(others.values(), read, strict=True)):
        return None
    return _Shared(
        packed, dict(zip(normalized, read, strict=False)), dict(zip(others, read[len(normalized) :], strict=True))
    )


def _as_autocast_would(tensors: Sequence[tuple[nn.Module, Tensor]], known: Sequence[Tensor]) -> list[Tensor]:
    """Cast, of layers and what they read, what autocast would cast at every use; `known` are the same, cast before."""
    products = [isinstance(layer, nn.Conv2d | nn.Linear) for layer, _ in tensors]
    of_products = [tensor for (_, tensor), product in zip(tensors, products, strict=True) if product]
    made = [tensor for tensor, product in zip(known, products, strict=False) if product]
    cast = iter(foreach_cast(of_products, compute_dtype(of_products[0]), made) if of_products else ())
    return [next(cast) if product else tensor for (_, tensor), product in zip(tensors, products, strict=True)]


def _kinds(layers: Sequence[Packing]) -> list[list[Packing]]:
    """Layers that can be packed together."""
    kinds: dict[Any, list[Packing]] = {}
    for layer in layers:
        parameter = next(layer.parameters())
        kinds.setdefault((type(layer), layer.impl, parameter.dtype, parameter.device), []).append(layer)
    return list(kinds.values())


def _pass(network: nn.Module, versions: dict[Tensor, int], shared: _Shared, *inputs: Tensor) -> Tensor:
    if _versions(network) != versions:
        raise RuntimeError(f"{type(network).__name__}'s parameters have changed since its weights were packed")
    with _set("packed", shared.packed), _set("W_bar", shared.W_bar):
        y: Tensor = functional_call(network, shared.parameters, inputs, tie_weights=False)  # each name has its tensor
    return y


@contextmanager
def _set(attribute: str, values: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Set an attribute of layers inside the block, past `nn.Module`, which would register a parameter."""
    for layer, value in values.items():
        vars(layer)[attribute] = value
    try:
        yield
    finally:
        for layer in values:
            del vars(layer)[attribute]


def _versions(network: nn.Module) -> dict[Tensor, int]:
    """List what passes read of a network, and count how often each was changed in place."""
    read = [*network.parameters(), *(layer.u for layer in spectral_layers(network))]
    return {tensor: tensor._version for tensor in read}
