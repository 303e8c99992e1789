"""Refuse tensors that do not fit, by shape, dtype or device, before a form computes with what lies beside them.

Torch's own operations refuse what they are given; a kernel or a loop is told sizes, by one of the tensors. The checks
read ranks and sizes that have to agree, and no other, so that a compiled graph stays good for any batch.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def unless_traced(check: Callable[..., None]) -> Callable[..., None]:
    """Decorate a check: torch.jit.trace, which warns of sizes that are compared, records without it."""

    @wraps(check)
    def checked(*args: Any) -> None:
        if not torch.jit.is_tracing():  # type: ignore[attr-defined]
            check(*args)

    return checked


def misfit(name: str, tensor: Tensor, expected: str) -> ValueError:
    """Make the error of a tensor that does not fit."""
    return ValueError(f"{name} has the shape {tuple(tensor.shape)}: expected {expected}")


@unless_traced
def check(name: str, tensor: Tensor, *expected: int) -> None:
    """Raise ValueError unless a tensor has this shape."""
    if tensor.shape != expected:
        raise misfit(name, tensor, str(tuple(map(int, expected))))


@unless_traced
def check_maps(x: Tensor, channels: int) -> None:
    """Raise ValueError unless x is (N, channels, H, W)."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise misfit("x", x, f"(N, {channels}, H, W)")


@unless_traced
def check_squares(x: Tensor) -> None:
    """Raise ValueError unless x is (N, C, H, W) with a square of 2x2."""
    if x.dim() != 4 or x.shape[2] < 2 or x.shape[3] < 2:
        raise misfit("x", x, "(N, C, H, W), H and W 2 at least")


def check_positions(x: Tensor, weight: Tensor) -> None:
    """Raise ValueError unless x is (N, C, H, W) or (N, C, D, H, W), and a weight of as many dimensions."""
    if x.dim() not in (4, 5) or weight.dim() != x.dim():
        taps = f", by a weight with as many dimensions, not {tuple(weight.shape)}"
        raise misfit("x", x, "(N, C, H, W) or (N, C, D, H, W)" + taps)


def check_device(name: str, tensor: Tensor, x: Tensor) -> None:
    """Raise ValueError unless a tensor lies where x does."""
    if tensor.device != x.device:
        raise ValueError(f"{name}: on {tensor.device}, expected {x.device}, where x is")


def check_dtype(name: str, tensor: Tensor, *expected: torch.dtype) -> None:
    """Raise ValueError unless a tensor is of one of these dtypes."""
    if tensor.dtype not in expected:
        raise ValueError(f"{name} is of {tensor.dtype}: expected {' or '.join(map(str, expected))}")


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless a tensor is of real floating-point numbers."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} is of {tensor.dtype}: expected floating-point numbers")


def check_number(name: str, value: float) -> None:
    """Raise TypeError for a tensor that torch takes for no number, as it would count as a constant here."""
    if type(value) is not float and isinstance(value, Tensor) and (value.dim() or value.requires_grad):
        raise TypeError(f"{name} must be a number, not a tensor with dimensions or one that requires gradients")


@unless_traced
def check_of_maps(x: Tensor, names: Sequence[str], *vectors: Tensor | None) -> None:
    """Raise ValueError unless vectors, where there are any, have one value for each of x's maps."""
    channels = x.shape[1]
    for vector in vectors:  # asked in the order of what takes least, as small maps take no longer than a few questions
        if vector is not None and (vector.dim() != 1 or vector.numel() != channels or not vector.is_floating_point()):
            name = next(name for name, of in zip(names, vectors, strict=True) if of is vector)
            check_floating(name, vector)
            raise misfit(name, vector, f"({channels},), by x of {tuple(x.shape)}")


@unless_traced
def check_taps(weight: Tensor, channels: int, *taps: int) -> None:
    """Raise ValueError unless a weight is (O, channels, *taps)."""
    if weight.shape[1:] != (channels, *taps):
        raise misfit("weight", weight, f"(O, {', '.join(map(str, (channels, *taps)))})")


def of_each(name: str, value: int | tuple[int, ...], dimensions: int) -> tuple[int, ...]:
    """Give a number for each dimension of positions, for one or as many; ValueError for anything else."""
    if isinstance(value, int):
        return (value,) * dimensions
    if isinstance(value, str) or len(value) != dimensions:
        raise ValueError(f"{name} {value!r}: expected a number, or one for each of {dimensions} dimensions")
    return tuple(value)
