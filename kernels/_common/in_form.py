"""Layers that are torch's but for the form they run in."""

from typing import Any

from lorbms_fast.kernels._common.dispatch import Impl, checked_impl


class InForm:
    """Mixin for a layer of torch's, with its arguments, that takes the name of a form, too."""

    impl: Impl | None = None
    """Form to run; None takes the one in force."""
    __jit_ignored_attributes__ = ["impl"]  # noqa: RUF012

    def __init__(self, *args: Any, impl: Impl | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.impl = checked_impl(impl)
