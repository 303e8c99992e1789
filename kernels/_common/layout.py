"""The layout of maps in memory."""

import torch
from torch import Tensor

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Layouts in which channels are neighbours in memory, by numbers of dimensions."""


def is_channels_last(x: Tensor) -> bool:
    """Say whether the channels of (N, C, H, W) are neighbours in memory, and several."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def is_dense(x: Tensor) -> bool:
    """Say whether a tensor lies without gaps in the order of its dimensions, or with channels behind all others."""
    return x.is_contiguous() or x.is_contiguous(memory_format=CHANNELS_LAST[x.dim()])


def new_maps(like: Tensor, channels: int, *size: int) -> Tensor:
    """Make channels_last maps, (N, channels, *size), of a tensor's N, dtype and device; values are anything."""
    shape = like.shape[0], channels, *size
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=CHANNELS_LAST[len(shape)])
