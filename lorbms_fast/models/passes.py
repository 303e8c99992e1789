"""Several passes of one network with the same parameters."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

from lorbms_fast.kernels import share

Pass = Callable[[Tensor], Tensor]


def passes(network: nn.Module, count: int) -> list[Pass]:
    """A network as functions of its input, one for each of several passes that share what parameters alone decide.

    That is what the network's method `packed` makes, if it has one: normalised, packed and folded weights. It is made
    now, once for all passes, and its gradients are added up once. So a pass is good until a parameter changes.

    Args:
        network: takes the input and, if it can pack, what it packed.
        count: how many passes.

    Returns:
        Functions, each to be called once.

    Raises:
        RuntimeError: by a pass, where a parameter has changed in the meantime.
    """
    pack: Callable[[], Any] | None = getattr(network, "packed", None)
    if pack is None:
        return [network] * count
    versions = _versions(network)
    return [partial(_pass, network, versions, packed) for packed in share(pack(), count)]


def _pass(network: nn.Module, versions: list[int], packed: Any, x: Tensor) -> Tensor:
    if _versions(network) != versions:
        raise RuntimeError(f"{type(network).__name__}'s parameters have changed since its weights were packed")
    y: Tensor = network(x, packed)
    return y


def _versions(network: nn.Module) -> list[int]:
    """How often each parameter and buffer was changed in place."""
    return [tensor._version for tensor in (*network.parameters(), *network.buffers())]
