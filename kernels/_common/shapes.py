"""Refuse tensors that do not fit, by shape, dtype or device, before a form computes with what lies beside them.

Torch's own operations refuse what they are given; a kernel or a loop is told sizes, by one of the tensors. The checks
read ranks and sizes that have to agree, and no other, so that a compiled graph stays good for any batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def traced(form: str) -> bool:
    """Say whether torch.jit.trace records, where all is `reference`; it warns of sizes that are compared."""
    return form == "reference" and torch.jit.is_tracing()  # type: ignore[attr-defined]


def misfit(name: str, tensor: Tensor, expected: str) -> ValueError:
    """Make the error of a tensor that does not fit."""
    return ValueError(f"{name} has the shape {tuple(tensor.shape)}: expected {expected}")


def check(name: str, tensor: Tensor, *expected: int) -> None:
    """Raise ValueError unless a tensor has this shape."""
    if tensor.shape != expected:
        raise misfit(name, tensor, str(tuple(map(int, expected))))


def check_maps(x: Tensor, channels: int) -> None:
    """Raise ValueError unless x is (N, channels, H, W)."""
    if x.dim() != 4 or x.shape[1] != channels:
        raise misfit("x", x, f"(N, {channels}, H, W)")


def check_positions(x: Tensor, weight: Tensor) -> None:
    """Raise ValueError unless x is (N, C, H, W) or (N, C, D, H, W), and a weight of as many dimensions."""
    if x.dim() not in (4, 5) or weight.dim() != x.dim():
        taps = f", by a weight with as many dimensions, not {tuple(weight.shape)}"
        raise misfit("x", x, "(N, C, H, W) or (N, C, D, H, W)" + taps)


def check_device(name: str, tensor: Tensor, x: Tensor) -> None:
    """Raise ValueError unless a tensor lies where x does."""
    if tensor.device != x.device:
        raise ValueError(f"{name} is on {tensor.device}: expected {x.device}, where x is")


def check_dtype(name: str, tensor: Tensor, *expected: torch.dtype) -> None:
    """Raise ValueError unless a tensor is of one of these dtypes."""
    if tensor.dtype not in expected:
        raise ValueError(f"{name} is of {tensor.dtype}: expected {' or '.join(map(str, expected))}")


def check_floating(name: str, tensor: Tensor) -> None:
    """Raise ValueError unless a tensor is of real floating-point numbers."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} is of {tensor.dtype}: expected floating-point numbers")


def check_of_maps(x: Tensor, names: Sequence[str], *vectors: Tensor | None) -> None:
    """Raise ValueError unless vectors, where there are any, have one value for each of x's maps."""
    channels = x.shape[1]
    for vector in vectors:  # asked in the order of what takes least, as small maps take no longer than a few questions
        if vector is not None and (vector.dim() != 1 or vector.numel() != channels or not vector.is_floating_point()):
            name = next(name for name, of in zip(names, vectors, strict=True) if of is vector)
            check_floating(name, vector)
            raise misfit(name, vector, f"({channels},), by x of {tuple(x.shape)}")


def check_taps(weight: Tensor, channels: int, *taps: int) -> None:
    """Raise ValueError unless a weight is (O, channels, *taps)."""
    if weight.shape[1:] != (channels, *taps):
        raise misfit("weight", weight, f"(O, {', '.join(map(str, (channels, *taps)))})")
