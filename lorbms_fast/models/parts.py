"""Running a stage of a network on a few images at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

CPU_BYTES = 24 * 2**20
"""glibc takes blocks above 32 MiB fresh from the system each time, whose pages then cost more than the arithmetic."""


def in_parts(stage: Callable[[Tensor], Tensor], x: Tensor, channels: int) -> Tensor:
    """`stage(x)`, on a CPU for as many images at a time as keep its largest tensor small.

    Args:
        stage: treats every image on its own, (n, ...) -> (n, ...).
        x: (N, C, H, W).
        channels: how many maps of H x W, in x's dtype, the largest tensor of the stage has for one image.
    """
    size = channels * x.shape[2] * x.shape[3] * x.element_size()
    parts = 1 if x.is_cuda else min(len(x), -(-len(x) * size // CPU_BYTES))
    return stage(x) if parts <= 1 else torch.cat([stage(part) for part in x.chunk(parts)])
