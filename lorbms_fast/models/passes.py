"""Several passes of one network with the same parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from lorbms_fast.kernels import fan_out
from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.foreach_cast import foreach_cast
from lorbms_fast.reference.layers import SpectralConv2d

Pass = Callable[..., Tensor]


def passes(network: nn.Module, count: int) -> list[Pass]:
    """A network as functions of its input, one for each of several passes that share what parameters alone decide.

    That is what the network's method `packed` makes, if it has one: normalized, packed and folded weights; otherwise,
    what its convolutions and linear layers read, in the dtype that autocast computes products in. It is made now, once
    for all passes, and its gradients are added up once. So a pass is good until a parameter changes.

    Args:
        network: takes inputs and, if it can pack, what it packed.
        count: how many passes.

    Returns:
        Functions, each to be called once.

    Raises:
        RuntimeError: by a pass, where a parameter has changed in the meantime.
    """
    pack: Callable[[], Any] | None = getattr(network, "packed", None)
    call: Callable[..., Tensor] = _with_packed if pack is not None else functional_call
    packed = pack() if pack is not None else _cast_parameters(network)
    if not packed:
        return [network] * count
    versions = _versions(network)
    return [partial(_pass, network, versions, call, of_pass) for of_pass in fan_out(packed, count)]


def _pass(network: nn.Module, versions: list[int], call: Callable[..., Tensor], packed: Any, *inputs: Tensor) -> Tensor:
    if _versions(network) != versions:
        raise RuntimeError(f"{type(network).__name__}'s parameters have changed since its weights were packed")
    return call(network, packed, inputs)


def _with_packed(network: nn.Module, packed: Any, inputs: tuple[Tensor, ...]) -> Tensor:
    y: Tensor = network(*inputs, packed)
    return y


def _cast_parameters(network: nn.Module) -> dict[str, Tensor]:
    """Cast, by name, what autocast would cast at every use; nothing where torch.compile has taken the network over."""
    if network._compiled_call_impl is not None:
        return {}
    found = {}
    for name, parameter in network.named_parameters():
        layer = network.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, nn.Conv2d | nn.Linear) or (isinstance(layer, SpectralConv2d) and name.endswith("bias")):
            found[name] = parameter
    if all(compute_dtype(parameter) == parameter.dtype for parameter in found.values()):
        return {}
    names, parameters = zip(*found.items(), strict=True)
    return dict(zip(names, foreach_cast(parameters, compute_dtype(parameters[0])), strict=True))


def _versions(network: nn.Module) -> list[int]:
    """Count how often each parameter and buffer was changed in place."""
    return [tensor._version for tensor in (*network.parameters(), *network.buffers())]
