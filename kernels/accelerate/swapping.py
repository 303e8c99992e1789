"""A module that does another's work and stays the same object."""

from typing import Any

from torch import Tensor, nn

_BEFORE = "_before_acceleration"


class Passed(nn.Module):
    """Stands where another module computes what was computed here."""

    def forward(self, input: Tensor) -> Tensor:
        """Hand the input on."""
        return input

    def extra_repr(self) -> str:
        """What it stands for."""
        return str(self.__dict__[_BEFORE][0].__name__)


def become(module: Any, kind: type, **attributes: Any) -> None:
    """Give a module, or a hook, another class and what that needs; `restored` undoes it."""
    module.__dict__[_BEFORE] = type(module), tuple(attributes)
    module.__class__ = kind
    module.__dict__.update(attributes)


def restored(module: Any) -> None:
    """Give it its own class again."""
    kind, attributes = module.__dict__.pop(_BEFORE, (None, ()))
    if kind is not None:
        module.__class__ = kind
        for name in attributes:
            del module.__dict__[name]


def has_hooks(module: nn.Module) -> bool:
    """Say whether somebody watches, or changes, what goes in and out of a module."""
    kinds = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return any(getattr(module, kind, None) for kind in kinds) or "forward" in module.__dict__
