"""A module that does another's work and stays the same object."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

_BEFORE, _PARTNERS = "_before_acceleration", "_accelerated_with"


class Passed(nn.Module):
    """Stands where another module computes what was computed here; `isinstance` says what it stands for."""

    def forward(self, input: Tensor) -> Tensor:
        """Hand the input on."""
        return input


class PassedReLU(Passed, nn.ReLU):
    """For a ReLU."""


class PassedLeakyReLU(Passed, nn.LeakyReLU):
    """For a LeakyReLU."""


class PassedSiLU(Passed, nn.SiLU):
    """For a SiLU."""


class PassedGELU(Passed, nn.GELU):
    """For a GELU."""


class PassedUpsample(Passed, nn.Upsample):
    """For an Upsample."""


class PassedUpsamplingNearest2d(Passed, nn.UpsamplingNearest2d):
    """For an UpsamplingNearest2d."""


class PassedReflectionPad2d(Passed, nn.ReflectionPad2d):
    """For a ReflectionPad2d."""


class PassedReplicationPad2d(Passed, nn.ReplicationPad2d):
    """For a ReplicationPad2d."""


PASSED: dict[type[nn.Module], type[nn.Module]] = {kind.__bases__[1]: kind for kind in Passed.__subclasses__()}
"""By what they stand for."""


def become(module: Any, kind: type, **attributes: Any) -> None:
    """Give a module, or a hook, another class and what that needs; `restored` undoes it."""
    module.__dict__[_BEFORE] = type(module), tuple(attributes)
    module.__class__ = kind
    module.__dict__.update(attributes)


def pair(one: nn.Module, other: nn.Module) -> None:
    """Remember that neither computes the right thing without the other."""
    for module, partner in ((one, other), (other, one)):
        module.__dict__.setdefault(_PARTNERS, []).append(partner)


def restored(module: Any) -> None:
    """Give it its own class again."""
    kind, attributes = module.__dict__.pop(_BEFORE, (None, ()))
    if kind is not None:
        if isinstance(module, nn.Module) and is_parametrized(module):  # since, by a class made for it
            own = {name: value for name, value in vars(type(module)).items() if name not in ("__dict__", "__weakref__")}
            kind = type(f"Parametrized{kind.__name__}", (kind,), own)
        module.__class__ = kind
        for name in attributes:
            del module.__dict__[name]


def with_partners(modules: Iterable[nn.Module]) -> set[nn.Module]:
    """Find modules and all that work with them, who forget each other."""
    waiting, found = list(modules), set()
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting += module.__dict__.pop(_PARTNERS, ())
    return found


def has_hooks(module: nn.Module) -> bool:
    """Say whether somebody watches, or changes, what goes in and out of a module."""
    kinds = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return any(getattr(module, kind, None) for kind in kinds) or "forward" in module.__dict__
