"""The layout of maps in memory."""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Say whether the channels of (N, C, H, W) are neighbours in memory, and several."""
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def new_maps(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    """Make channels_last maps, (N, channels, height, width), of a tensor's N, dtype and device; values are anything."""
    shape = len(like), channels, height, width
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def arranged(maps: Tensor, layout: torch.memory_format) -> Tensor:
    """(N, C, H, W) in a layout: the same, or a copy."""
    if maps.is_contiguous(memory_format=layout):
        return maps
    lines = maps.permute(0, 2, 3, 1)
    if layout == torch.channels_last and maps.is_contiguous():
        result = new_maps(maps, *maps.shape[1:])
        pairs = zip(result.permute(0, 2, 3, 1).flatten(1, 2), maps.flatten(2), strict=True)
    elif layout == torch.contiguous_format and lines.is_contiguous():
        result = torch.empty_like(maps, memory_format=layout)
        pairs = zip(result.flatten(2), lines.flatten(1, 2), strict=True)
    else:
        return maps.contiguous(memory_format=layout)
    for to, of in pairs:
        to.copy_(of.t())  # torch transposes matrices three times as fast as it copies maps to another layout
    return result
