"""The arithmetic of convolutions and matrix products.

Parameters, statistics, losses and optimizers stay float32 in all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from lorbms_fast.config import Precision

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def chosen_precision(wish: Precision | Literal["auto"], device: torch.device) -> Precision:
    """The arithmetic that a setting means on a device: `auto` is bfloat16 on CUDA, float32 on a CPU."""
    if wish == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return wish


@contextmanager
def precision(device: torch.device, arithmetic: Precision) -> Iterator[None]:
    """Inside the block, convolutions and matrix products compute in the given arithmetic.

    Autocast's cache of converted weights is off: the block spans several updates, and the cache would hand out weights
    of before the first. What autocast leaves in float32 may use TF32 unless float32 itself is asked for.
    """
    half = _HALF.get(arithmetic)
    with (
        _tf32(arithmetic != "float32"),
        torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None, cache_enabled=False),
    ):
        yield


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Products of float32 by TensorFloat-32 or not; CPUs do not care."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
