"""Layers that are torch's but for the form they run in."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from lorbms_fast.kernels._common.dispatch import Impl, checked_impl


class InForm:
    """Mixin for a layer of torch's, with its arguments, that takes the name of a form, too."""

    impl: Impl | None = None
    """Form to run; None takes the one in force."""
    __jit_ignored_attributes__ = ["impl"]  # noqa: RUF012

    def __init__(self, *args: Any, impl: Impl | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.impl = checked_impl(impl)


_Layer = TypeVar("_Layer", bound=type[nn.Module])


def under_the_name_of(torchs: type[nn.Module]) -> Callable[[_Layer], _Layer]:
    """Decorate a layer that stands for torch's: who initializes layers by the names of their classes finds torch's.

    Its `repr` says what it is, and pickle looks for that; classes derived from it have names of their own.
    """

    def named(layer: _Layer) -> _Layer:
        ours, layer.__name__ = layer.__name__, torchs.__name__
        layer._get_name = lambda self: ours if type(self) is layer else type(self).__name__  # type: ignore[method-assign]
        return layer

    return named
