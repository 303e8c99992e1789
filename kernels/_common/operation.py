"""The dispatcher: which form an operation runs in at a shape, by what was found on first use; and a way back.

A call that names no form takes, where `auto` or `triton` is in force, the form that `install` was told for its key.
One of another shape takes the fused form if the operation's kernels failed elsewhere, and otherwise what `select_impl`
says.
A kernel that fails as it is launched, at a shape that nobody tried, makes its operation fall back there; one of a
backward makes it fall back everywhere.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from lorbms_fast.errors import said
from lorbms_fast.kernels._common import dispatch, double_backward
from lorbms_fast.kernels._common.autocast import compute_dtype, convolves_in_tf32

P = ParamSpec("P")
R = TypeVar("R")
Key = tuple[Any, ...]
Variants = Callable[..., dict[str, Callable[[], None]]]
"""Function from a call's arguments to ways of running its kernels, by name; each sets its own for this shape."""
Watcher = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], None]

TRITON = "triton"
"""Name of a form; that of a variant is `triton: VARIANT`."""

_forms: dict[Key, str] = {}
_folders: dict[str, str] = {}
_variants: dict[str, Variants] = {}
_watcher: Watcher | None = None
_answered = False
"""Somebody else answers kernels that fail."""


def operation(
    *, kernels: str | None = None, variants: Variants | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Hand the choice of a function's form to the dispatcher; it takes tensors first, and `impl`.

    Its kernels are in the package `kernels` below `lorbms_fast.kernels`, by default its own; they may have `variants`.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name, place = function.__name__, list(signature(function).parameters).index("impl")
        _folders[name] = function.__module__ if kernels is None else f"lorbms_fast.kernels.{kernels}"
        if variants is not None:
            _variants[name] = variants

        @wraps(function)
        def dispatched(*args: Any, **kwargs: Any) -> R:
            named = kwargs.pop("impl", None) if len(args) <= place else args[place]
            args = args[:place]
            if named is None:
                named = _asked(args)
            if torch.compiler.is_compiling():
                failed = named is None and name in dispatch.failed
                return _in_form(function, "fused" if failed else named, args, kwargs)
            if named is not None or dispatch.transformed():
                return _in_form(function, named, args, kwargs)
            if _watcher is not None:
                with watched(None) as watcher:
                    watcher(dispatched, args, kwargs)
                    return function(*args, **kwargs)
            if dispatch.in_force() not in ("auto", TRITON):
                return function(*args, **kwargs)
            return _as_found(function, args, kwargs)

        return dispatched

    return decorate


def _asked(args: tuple[Any, ...]) -> str | None:
    """The form that packed parameters among arguments were asked for."""
    # No := in here: torch 2.11 cannot compile a variable that only a comprehension sets.
    # Nor are numbers asked: with dynamic=True they are symbols, which cannot be.
    asked = [getattr(arg, "asked", None) for arg in args if not isinstance(arg, int | float)]
    return next((one for one in asked if one is not None), None)


def _in_form(function: Callable[..., R], form: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    form, variant = (form, "") if form is None else form.partition(": ")[::2]
    if variant:
        _variants[function.__name__](*args, **kwargs)[variant]()
    return function(*args, **kwargs, impl=form)


def _as_found(function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    """Run the form that was found for such a call, and the fused one where a kernel fails."""
    name = function.__name__
    key = key_of(name, args, kwargs) if _forms or name in dispatch.failed else ()
    form = _forms.get(key, "fused" if name in dispatch.failed and dispatch.in_force() == "auto" else None)
    if form == "fused":
        return _in_form(function, form, args, kwargs)
    try:
        return _in_form(function, form, args, kwargs)
    except Exception as error:
        if _to_be_raised(error):
            raise
        why = said(error)
    _forms[key or key_of(name, args, kwargs)] = "fused"
    dispatch.failed.add(name)
    warnings.warn(
        f"{name}: its kernel failed ({why}); the fused form runs instead, here and at shapes that nobody has tried",
        RuntimeWarning,
        stacklevel=3,
    )
    return _in_form(function, "fused", args, kwargs)


def by_kernels(kernels: Callable[[], R], definition: Callable[[], R]) -> R:
    """Run a backward by its kernels; by its definition where it is differentiated itself, or where a kernel fails.

    It fails with the kernel where `triton` is in force as it runs: see `use_impl`.
    """
    if double_backward.asked_for():
        return definition()
    try:
        return kernels()
    except Exception as error:
        if _to_be_raised(error):
            raise
        names, why = failing(error), said(error)
    fall_back(names)
    if names:
        warnings.warn(
            f"{', '.join(names)}: a kernel of the backward failed ({why}); the definition runs instead, and the fused "
            "form from here on",
            RuntimeWarning,
            stacklevel=2,
        )
    return definition()


def _to_be_raised(error: Exception) -> bool:
    """Say whether an error is no kernel's, or somebody else answers it, or kernels are wanted and nothing else."""
    return _answered or failed_kernel(error) is None or dispatch.in_force() == TRITON


def key_of(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Key:
    """Describe a call, but for the number of samples and `impl`: shapes, dtypes and options."""
    first, *others = args
    x: Tensor = first if isinstance(first, Tensor) else first[0]
    of_first = (tuple(first.shape[1:]), first.dtype) if isinstance(first, Tensor) else _described(first)
    named = tuple(sorted((word, _described(value)) for word, value in kwargs.items()))
    dtype = compute_dtype(x)
    tf32 = dtype == torch.float32 and convolves_in_tf32()
    return name, of_first, *map(_described, others), *named, dtype, tf32


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    if hasattr(value, "signature"):
        return value.signature()
    return tuple(map(_described, value)) if isinstance(value, list | tuple) else value


def variants_of(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """List the forms that run an operation's kernels at a call."""
    of_call = _variants[name](*args, **kwargs) if name in _variants else {}
    return [f"{TRITON}: {variant}" for variant in of_call] or [TRITON]


@contextmanager
def watched(watcher: Watcher | None) -> Iterator[Any]:
    """Show a watcher each call inside the block that names no form; yields the watcher of before."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield before
    finally:
        _watcher = before


def is_watched() -> bool:
    """Say whether somebody writes down which operations are called."""
    return _watcher is not None


@contextmanager
def failures_answered() -> Iterator[None]:
    """Raise, inside the block, what a kernel fails with: whoever catches it asks `failing`."""
    global _answered
    before, _answered = _answered, True
    try:
        yield
    finally:
        _answered = before


def install(forms: Mapping[Key, str], failed: set[str]) -> None:
    """Have calls run in `fused`, `triton` or one of its variants, by key; kernels of `failed` failed at some shape."""
    _forms.clear()
    _forms.update(forms)
    dispatch.failed.clear()
    dispatch.failed.update(failed)


def failing(error: BaseException) -> list[str]:
    """List the operations whose kernel failed; none if it was no kernel, or if they had fallen back before."""
    module = failed_kernel(error) or "?"
    folder = module.removesuffix(".triton.ops")
    names = [name for name, of in _folders.items() if of == folder or of.startswith(f"{folder}.")]
    return [name for name in names if name not in dispatch.failed or {*_forms_of(name).values()} - {"fused"}]


def fall_back(names: Iterable[str]) -> None:
    """Have operations run in the fused form at every shape."""
    for name in names:
        _forms.update(dict.fromkeys(_forms_of(name), "fused"))
        dispatch.failed.add(name)


def _forms_of(name: str) -> dict[Key, str]:
    return {key: form for key, form in _forms.items() if key[0] == name}


def failed_kernel(error: BaseException | None) -> str | None:
    """Find the module that launched the kernel an exception comes from, if it comes from one."""
    while error is not None:
        module: str | None = getattr(error, "launched_by", None)
        if module is not None:
            return module
        error = error.__cause__ or error.__context__
    return None
