"""What TorchScript, which knows no operations of ours, compiles of a layer."""

from collections.abc import Callable
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor


def torchs_own(layer: type) -> Callable[..., Any]:
    """Return the forward of a layer of torch's as a method `_torchs_own`.

    TorchScript knows no `super()`, and takes what a method calls by its own name: `forward` it has already.
    """
    forward = cast(FunctionType, layer.forward)  # type: ignore[attr-defined]
    code, defaults = forward.__code__, forward.__defaults__
    function = FunctionType(code, forward.__globals__, "_torchs_own", defaults, forward.__closure__)
    function.__annotations__ = forward.__annotations__
    return function


def forward(self: Any, input: Tensor) -> Tensor:
    """Compute as torch's layer does: by ours, `_recorded`, and within TorchScript by `_torchs_own`."""
    # TorchScript reads the first branch alone, and knows torch's own alone.
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return self._torchs_own(input)
    else:
        return self._recorded(input)
