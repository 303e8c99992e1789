"""Which form of an operation runs: its definition, the fused PyTorch form, or (where there is one) a Triton kernel."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

Impl = Literal["auto", "reference", "torch"]

# A plain global and no ContextVar: torch.compile guards the one and breaks the graph at the other.
_chosen: Impl = "auto"


def resolve(impl: Impl | None) -> Literal["reference", "torch"]:
    """Name the form to run for a call's `impl`; None means what `use_impl` set, and `auto` the fastest here.

    Raises:
        ValueError: there is no such form.
    """
    chosen = _chosen if impl is None else impl
    if chosen not in get_args(Impl):
        raise ValueError(f"impl '{chosen}': choose one of {', '.join(get_args(Impl))}")
    return "torch" if chosen == "auto" else chosen


@contextmanager
def use_impl(impl: Impl) -> Iterator[None]:
    """Run every operation of this package inside the block, in every thread, in one form; a call may name another."""
    global _chosen
    before, _chosen = _chosen, impl
    try:
        yield
    finally:
        _chosen = before
