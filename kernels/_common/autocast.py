"""Resolve what autocast does to an operation."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from lorbms_fast.kernels._common.cpp.lines import plain
from lorbms_fast.kernels._common.of_torch import constant_to_compilers


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype a convolution or matrix product of x computes in: autocast's inside its context, else x's own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if _knows(device) and torch.is_autocast_enabled(device) else x.dtype


def read_together(dtype: torch.dtype, *tensors: Tensor | None) -> bool:
    """Do tensors lie in the CPU's memory, in dtypes that torch computes together in this one? Autocast takes two."""
    dtypes = {torch.float32, torch.bfloat16} if torch.is_autocast_enabled("cpu") else {dtype}
    return all(t is None or (plain(t) and t.dtype in dtypes) for t in tensors)


def cast(dtype: torch.dtype, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A convolution's weight and bias in the dtype that it computes in."""
    return weight.to(dtype), None if bias is None else bias.to(dtype)


def convolves_in_tf32() -> bool:
    """Tell whether torch's own convolutions of float32 may use TF32.

    `cudnn.allow_tf32`, which is older, cannot be read where somebody has set what came after it.
    """
    precision: str = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return precision == "tf32"


def refuse_integers(x: Tensor) -> None:
    """Raise RuntimeError for x of whole numbers, which torch's convolutions refuse beside floating-point weights."""
    if not x.is_floating_point():
        raise RuntimeError(f"maps of {x.dtype}: a convolution with floating-point weights takes floating-point ones")


def no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Compute with x as it is."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if _knows(device) else nullcontext()


@constant_to_compilers  # torch 2.11's compiler cannot look inside
def _knows(device: str) -> bool:
    """Say whether the device has autocast; `meta` has none."""
    return torch.amp.is_autocast_available(device)
