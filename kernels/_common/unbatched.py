"""Layers of (N, C, H, W) that take (C, H, W) too, as torch's convolutions do."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor, nn


def takes_one(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Decorate a module's forward: one sample without a batch gives one result without."""

    @wraps(forward)
    def batched(module: nn.Module, input: Tensor) -> Tensor:
        return forward(module, input[None])[0] if input.dim() == 3 else forward(module, input)

    return batched
