"""Functions that launch kernels, registered as operations of torch's; precision and blocks of their products."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.autocast import convolves_in_tf32
from lorbms_fast.kernels._common.of_torch import CustomOpDef


def triton_op(name: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """Register a function of tensors, numbers and lists as `torch.ops.lorbms_fast.<name>`; it changes no argument.

    `torch.compile` and `torch.export` see one operator and break no graph. Kernels are launched on the device of the
    function's first argument, which need not be the current one. An error, but of memory or arguments, bears the module
    it comes from, by which the dispatcher knows a kernel that failed. NotImplementedError is for sizes without one.
    """

    def decorate(function: Callable[..., Any]) -> CustomOpDef:
        @wraps(function)
        def on_its_device(first: Tensor, *others: Any) -> Any:
            with torch.cuda.device_of(first):
                try:
                    return function(first, *others)
                except Exception as error:
                    if not isinstance(error, MemoryError | torch.OutOfMemoryError | ValueError):
                        error.launched_by = function.__module__  # type: ignore[attr-defined]
                    raise

        return torch.library.custom_op(f"lorbms_fast::{name}", on_its_device, mutates_args=())

    return decorate


def input_precision(dtype: torch.dtype) -> str:
    """Input precision of products of a dtype: of float32's, what torch's own convolutions are allowed."""
    return "ieee" if dtype == torch.float32 and not convolves_in_tf32() else "tf32"


def at_least_16(size: int, most: int) -> int:
    """A power of two that covers `size` if it may, and that a matrix product can have."""
    return int(min(most, max(16, triton.next_power_of_2(size))))
