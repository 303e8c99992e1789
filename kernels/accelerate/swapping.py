"""A module that does another's work and stays the same object.

What was known of it when it was swapped may not hold for ever. It is of its own class again, and those that it works
with are, once an attribute is set that it does not ask for at every call, and once somebody watches what goes in and
out of one, or puts another in its place.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from types import MethodType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from lorbms_fast.kernels._common.fx_leaf import leaf

_BEFORE, _PARTNERS = "_before_acceleration", "_accelerated_with"
_CALLED = "forward", "_conv_forward"
"""What somebody may put into an object to be called in place of its class's."""


class Swapped(nn.Module):
    """Is of its own class again once an attribute gets a value that it would not ask for."""

    asked_for: ClassVar[frozenset[str]] = frozenset()
    """Attributes that its forward asks for at every call, or that make no difference."""

    def __setattr__(self, name: str, value: Any) -> None:
        own, asked_for = self.__dict__, name in self.asked_for or name == "training" or name.startswith("_")
        changes = name in own and own[name] is not value and not asked_for
        if _BEFORE in own and (changes or name in _CALLED):
            part(self)
            setattr(self, name, value)
        else:
            super().__setattr__(name, value)


def _parting(register: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(register)
    def registered(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        part(module)
        return register(module, *args, **kwargs)

    return registered


class Joined(Swapped):
    """Works with others, and is of its own class again once a hook is on it."""

    register_forward_hook = _parting(nn.Module.register_forward_hook)
    register_forward_pre_hook = _parting(nn.Module.register_forward_pre_hook)
    register_backward_hook = _parting(nn.Module.register_backward_hook)
    register_full_backward_hook = _parting(nn.Module.register_full_backward_hook)
    register_full_backward_pre_hook = _parting(nn.Module.register_full_backward_pre_hook)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        _watch_registrations()


class Passed(Joined):
    """Stands where another module computes what was computed here; `isinstance` says what it stands for."""

    asked_for = frozenset({"inplace"})

    def forward(self, input: Tensor) -> Tensor:
        """Hand the input on."""
        # TorchScript reads the first branch alone.
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return input
        else:
            return _handed_on(self, input)


@leaf
def _handed_on(module: nn.Module, input: Tensor) -> Any:
    """Return the input, unless the module is what it was again: a wrapper may have kept the other forward."""
    return input if isinstance(module, Passed) else type(module).forward(module, input)


class PassedReLU(Passed, nn.ReLU):
    """For a ReLU."""


class PassedLeakyReLU(Passed, nn.LeakyReLU):
    """For a LeakyReLU: one in place may keep its result for the backward."""

    asked_for = frozenset()


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
    """Give a module, or a hook, another class and what that needs; `restored` undoes it.

    What a parametrization has made of a class, it is then of the other one.
    """
    before = kind_of(module)
    module.__dict__[_BEFORE] = before, tuple(attributes)
    module.__class__ = _instead(type(module), before, kind)
    module.__dict__.update(attributes)


def kind_of(module: Any) -> Any:
    """The class of a module, but for what a parametrization of its weight alone, read once a call, made of it."""
    if not isinstance(module, nn.Module) or not is_parametrized(module):
        return type(module)
    parametrized = module.get_submodule("parametrizations")._modules
    return type_before_parametrizations(module) if [*parametrized] == ["weight"] else type(module)


def pair(one: nn.Module, other: nn.Module) -> None:
    """Remember that neither computes the right thing without the other."""
    for module, partner in ((one, other), (other, one)):
        module.__dict__.setdefault(_PARTNERS, []).append(partner)
    _watch_registrations()


def restored(module: Any) -> None:
    """Give it its own class again."""
    kind, attributes = module.__dict__.pop(_BEFORE, (None, ()))
    if kind is None:
        return
    ours = next(each for each in type(module).__mro__ if each.__module__.startswith("lorbms_fast."))
    module.__class__ = _instead(type(module), ours, kind)
    for name in attributes:
        del module.__dict__[name]
    for name, value in vars(module).items():  # what a wrapper keeps
        if isinstance(value, MethodType) and value.__self__ is module:
            module.__dict__[name] = MethodType(getattr(kind, value.__name__, value.__func__), module)


def _instead(made: type, ours: type, kind: type) -> type:
    """Make the class that was made of ours, by a parametrization or by FSDP, of another."""
    if made is ours:
        return kind
    own = {name: value for name, value in vars(made).items() if name not in ("__dict__", "__weakref__")}
    bases = tuple(_instead(base, ours, kind) if issubclass(base, ours) else base for base in made.__bases__)
    return type(made.__name__.replace(ours.__name__, kind.__name__), bases, own)


def with_partners(modules: Iterable[nn.Module]) -> set[nn.Module]:
    """Find modules and all that work with them, who forget each other."""
    waiting, found = list(modules), set()
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting += module.__dict__.pop(_PARTNERS, ())
    return found


def part(module: nn.Module) -> None:
    """Give it, and those that work with it, their own classes again."""
    for each in with_partners([module]):
        restored(each)


_watching = False


def _watch_registrations() -> None:
    global _watching
    if not _watching:
        register_module_module_registration_hook(_registered)
        # Torch has no hooks that tell of deletions: its methods are wrapped, for the whole process and for good.
        nn.Module.__delattr__ = _watched(nn.Module.__delattr__)  # type: ignore[method-assign]
        nn.ModuleDict.__delitem__ = _watched(nn.ModuleDict.__delitem__)  # type: ignore[method-assign]
        nn.ModuleDict.clear = _watched(nn.ModuleDict.clear)  # type: ignore[method-assign]
        _watching = True


def _watched(delete: Callable[..., None]) -> Callable[..., None]:
    """Part those that do not go together before the module of a name, or all of them, is deleted."""

    @wraps(delete)
    def deleted(parent: nn.Module, *names: str) -> None:
        modules = vars(parent).get("_modules", {})
        for name in names or [*modules]:
            if name in modules:
                _registered(parent, name, None)
        delete(parent, *names)

    return deleted


def _registered(parent: nn.Module, name: str, module: nn.Module | None) -> None:
    """Part those that do not stay together when a module gets a place, which may have been another's.

    Copies that `DataParallel` makes of all modules, one by one, do.
    """
    before = vars(parent)["_modules"].get(name)
    if before is module or "_is_replica" in vars(parent):
        return
    gone = {each for each in _below(before) if _PARTNERS in vars(each)}
    stay = {*_below(module)} if gone else {module}
    for each in gone if module is None else gone | {module}:
        together = {each, *vars(each).get(_PARTNERS, ())}
        if not (together <= stay or (together <= gone and together.isdisjoint(stay))):
            part(each)


def _below(module: nn.Module | None) -> Iterable[nn.Module]:
    return () if module is None else module.modules()


def has_hooks(module: nn.Module) -> bool:
    """Say whether somebody watches, or changes, what goes in and out of a module."""
    kinds = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return any(getattr(module, kind, None) for kind in kinds) or any(name in module.__dict__ for name in _CALLED)
