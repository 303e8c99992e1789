"""Batch norms that call an activation of their own, as timm's do: ours computes it, and theirs hands its input on."""

from typing import Any

import torch.nn.functional as F
from torch import nn

from lorbms_fast.kernels.accelerate.joined import BatchNormAct2d
from lorbms_fast.kernels.accelerate.swapping import has_hooks
from lorbms_fast.kernels.accelerate.uses import graphs_of

_OF_TIMM = "timm.layers.norm_act.BatchNormAct2d"


def own_activation(norm: nn.Module) -> nn.Module | None:
    """The child that computes what a norm gives, from the norm of its input; None if it is not known to be so."""
    kind = type(norm)
    if f"{kind.__module__}.{kind.__qualname__}" != _OF_TIMM or [*norm._modules] != ["drop", "act"]:
        return None
    drop, graphs = norm._modules["drop"], graphs_of(norm)
    if type(drop) is not nn.Identity or has_hooks(drop) or not graphs:
        return None
    for graph in graphs:
        dropped, activated, result = [*graph.nodes][-3:]
        normalized: Any = dropped.args[0] if dropped.args else None
        if [node.target for node in (dropped, activated)] != ["drop", "act"] or normalized.target is not F.batch_norm:
            return None
        if activated.args != (dropped,) or result.args != (activated,) or [*dropped.users] != [activated]:
            return None
    return norm._modules["act"]


class _WithActivation(BatchNormAct2d):
    """A norm whose class, made by `with_activation`, is also the one it was written as."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        # Its class has no name that pickle could find.
        return _unmade, (type(self).__bases__[1],), self.__dict__


_OURS: dict[type[nn.Module], type[nn.Module]] = {}


def with_activation(kind: type[nn.Module]) -> type[nn.Module]:
    """Make the class of a norm that was written as this one, always the same."""
    if kind not in _OURS:
        _OURS[kind] = type(BatchNormAct2d.__qualname__, (_WithActivation, kind), {})
    return _OURS[kind]


def _unmade(kind: type[nn.Module]) -> nn.Module:
    return with_activation(kind).__new__(with_activation(kind))
