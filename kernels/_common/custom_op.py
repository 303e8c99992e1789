"""Functions that launch kernels, registered as operations of torch's."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef


def triton_op(name: str) -> Callable[[Callable[..., Any]], CustomOpDef]:
    """Register a function of tensors, numbers and lists as `torch.ops.lorbms_fast.<name>`; it changes no argument.

    `torch.compile` and `torch.export` see one operator and break no graph. Kernels are launched on the device of the
    function's first argument, which need not be the current one.
    """

    def decorate(function: Callable[..., Any]) -> CustomOpDef:
        @wraps(function)
        def on_its_device(first: Tensor, *others: Any) -> Any:
            with torch.cuda.device_of(first):
                return function(first, *others)

        return torch.library.custom_op(f"lorbms_fast::{name}", on_its_device, mutates_args=())

    return decorate
