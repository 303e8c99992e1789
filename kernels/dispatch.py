"""Which form of an operation runs: its definition, the fused PyTorch form, or (where there is one) a Triton kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, get_args

Impl = Literal["auto", "reference", "torch"]

_chosen: ContextVar[Impl] = ContextVar("lorbms_fast_kernels_impl", default="auto")


def resolve(impl: Impl | None) -> Literal["reference", "torch"]:
    """Name the form to run for a call's `impl`; None means what `use_impl` set, and `auto` the fastest here.

    Raises:
        ValueError: there is no such form.
    """
    chosen = _chosen.get() if impl is None else impl
    if chosen not in get_args(Impl):
        raise ValueError(f"impl '{chosen}': choose one of {', '.join(get_args(Impl))}")
    return "torch" if chosen == "auto" else chosen


@contextmanager
def use_impl(impl: Impl) -> Iterator[None]:
    """Run every operation of this package inside the block in one form, unless a call names another."""
    token = _chosen.set(impl)
    try:
        yield
    finally:
        _chosen.reset(token)
