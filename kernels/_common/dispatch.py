"""Choose the form of an operation: its definition, the fused PyTorch form, or (where there is one) a Triton kernel."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, get_args

import torch
from torch import Tensor

from lorbms_fast.errors import said
from lorbms_fast.kernels._common import of_torch

Form = Literal["reference", "fused", "triton"]
Impl = Literal["auto", "reference", "fused", "triton"]
"""Values of `impl=`: the definition, fused PyTorch, a Triton kernel, or the fastest that runs here."""

INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
"""Kernels run in Triton's interpreter, on the CPU: for tests. Triton too reads the variable when it is imported."""


def found_triton() -> bool:
    """Is there a Triton that kernels can be written with? One that fails as it is imported, or ours in it, is told of.

    One that fails as it compiles or launches is answered by `operation`.
    """
    if find_spec("triton") is None:
        return False
    try:
        import_module("lorbms_fast.kernels._common.autotune")  # asks more of Triton than any other module
    except Exception as error:
        told = f"this Triton is not one that kernels are written for ({said(error)}): the fused forms run instead"
        warnings.warn(told, RuntimeWarning, stacklevel=2)
        return False
    return True


HAS_TRITON = found_triton()
"""Only then do the operations import (and register) their kernels."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# A plain global and no ContextVar: torch.compile guards the one and breaks the graph at the other.
_chosen: Impl = "auto"

_supported: dict[int | None, bool] = {}
"""Whether Triton supports a GPU, by number, where somebody has asked."""

failed: set[str] = set()
"""Operations whose kernels failed at some shape: at shapes that nobody has tried they run in the fused form."""


def select_impl(impl: Impl | None, x: Tensor, prepares: str | None = None) -> Form:
    """Name the form to run for a call's `impl`; None means what `use_impl` set, and `auto` the fastest here.

    `auto` is `triton` for float32, bfloat16 and float16 on a GPU that Triton supports, else `fused`. An operation
    without a Triton kernel runs its fused PyTorch form for `triton`. Where torch transforms what runs (see
    `transformed`), all is `reference`.
    Where the kernels of an operation failed that the call `prepares` weights for, `auto` is `fused`.

    x is a tensor the operation reads. Raises ValueError if there is no such form, or Triton cannot run on x.
    """
    chosen = checked_impl(impl) or _chosen
    if transformed():
        return "reference"
    if chosen == "auto":
        runs = HAS_TRITON and not INTERPRETED and x.is_cuda and x.dtype in _DTYPES and prepares not in failed
        return "triton" if runs and _supports(x.device) else "fused"
    if chosen == "triton":
        if not HAS_TRITON:
            raise ValueError("impl 'triton' needs the package triton, one that kernels know: choose fused or auto")
        if not (x.is_cuda or INTERPRETED):
            raise ValueError(f"impl 'triton' runs on CUDA, not on {x.device.type}: choose fused or auto")
        if x.dtype not in _DTYPES:
            raise ValueError(f"impl 'triton' computes in float32, bfloat16 and float16, not {x.dtype}: choose fused")
    return chosen


def kernels_run_on(device: torch.device) -> bool:
    """Say whether Triton's kernels run on a device: interpreted, where nobody waits for a GPU's hours of it."""
    return HAS_TRITON and (device.type == "cpu" if INTERPRETED else device.type == "cuda" and _supports(device))


def _supports(device: torch.device) -> bool:
    """Say whether Triton supports a GPU: before Ampere it compiles, but multiplies without tensor cores.

    Tensors without values may lie on one that is not here. One that compiled code meets first counts as supported.
    """
    if device.index not in _supported and not torch.compiler.is_compiling():
        here = torch.cuda.is_available()
        _supported[device.index] = not here or torch.cuda.get_device_capability(device) >= (8, 0)
    return _supported.get(device.index, True)


def in_force() -> Impl:
    """Name what `use_impl` set."""
    return _chosen


def transformed() -> bool:
    """Say whether torch transforms what runs, so that only operations of its own will do.

    torch.func (vmap, grad, jvp, ...), forward-mode differentiation and torch.jit.trace know none of ours.
    """
    if torch.compiler.is_compiling():
        return False
    of_transform = of_torch.in_transform() or of_torch.in_forward_mode()
    return of_transform or torch.jit.is_tracing()  # type: ignore[attr-defined]


def checked_impl(impl: Impl | None) -> Impl | None:
    """`impl`, if there is such a form, else ValueError. The old name `torch` of the fused form is still understood."""
    if impl == "torch":
        warnings.warn("impl 'torch' is now called 'fused'", DeprecationWarning, stacklevel=3)
        return "fused"
    if impl is not None and impl not in get_args(Impl):
        raise ValueError(f"impl '{impl}': choose one of {', '.join(get_args(Impl))}")
    return impl


@contextmanager
def use_impl(impl: Impl) -> Iterator[None]:
    """Run every operation of this package inside the block, in every thread, in one form; a call may name another.

    >>> from lorbms_fast.kernels import InstanceNormReLU
    >>> with use_impl("reference"):
    ...     y = InstanceNormReLU()(torch.randn(2, 3, 8, 8))

    A kernel that fails where `triton` is in force is an error, in a backward, too. One of a call that names `triton` is
    an error in its forward alone: a backward is no call's, and goes on by the definition.

    Raises ValueError if there is no such form.
    """
    global _chosen
    before, _chosen = _chosen, checked_impl(impl) or "auto"
    try:
        yield
    finally:
        _chosen = before
