"""The convolution of an enlarged map by Winograd's algorithm, which sees it in the map itself, or four of 2x2 taps.

The first is for CPUs, and where Winograd's algorithm pays. As for the others: along one axis, output 2 r reads rows
2 r - 1, 2 r and 2 r + 1 of the enlarged map, which are rows r - 1, r and r of the map, and output 2 r + 1 reads rows r,
r and r + 1. So with taps w0, w1, w2

    y[2 r] = w0 x[r - 1] + (w1 + w2) x[r],    y[2 r + 1] = (w0 + w1) x[r] + w2 x[r + 1],

and in two dimensions an output takes 4 products instead of 9, and the enlarged map is never made. All of that is made
of torch's operations, so that it has every derivative.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common.autocast import no_autocast
from lorbms_fast.kernels._common.constants import beside
from lorbms_fast.kernels._common.layout import is_channels_last
from lorbms_fast.kernels.winograd_conv.fused import by_loops

# What each of two taps along one axis sums up of w0, w1, w2: for even outputs, and for odd ones.
_EVEN, _ODD = ((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1))
_SUMS = tuple(
    tuple(a * b for a in row for b in column)
    for rows in (_EVEN, _ODD)
    for columns in (_EVEN, _ODD)
    for row in rows
    for column in columns
)
_OF_MAP = {"zeros": "constant", "reflect": "replicate", "replicate": "replicate", "circular": "circular"}
"""Padding of the map that gives what padding the enlarged map by one gives: beyond its edge lies its edge again."""


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """(N, C, H, W) -> (N, O, 2 H, 2 W), channels_last if x is; documented in `reference.py`."""
    if (result := by_loops(x, weight, bias, (1, 1), padding_mode, doubled=True)) is not None:
        return result
    N, _, H, W = x.shape
    channels_last = is_channels_last(x)
    padded = F.pad(x, (1, 1, 1, 1), mode=_OF_MAP[padding_mode])
    if channels_last:
        padded = padded.contiguous(memory_format=torch.channels_last)
    phases = [
        F.conv2d(padded[:, :, row : row + H + 1, column : column + W + 1], taps, bias)
        for (row, column), taps in zip(((0, 0), (0, 1), (1, 0), (1, 1)), _folded(weight), strict=True)
    ]
    if channels_last:
        lines = torch.stack([y.permute(0, 2, 3, 1) for y in phases]).unflatten(0, (2, 2))
        return lines.permute(2, 3, 0, 4, 1, 5).reshape(N, 2 * H, 2 * W, len(weight)).permute(0, 3, 1, 2)
    return torch.stack(phases).unflatten(0, (2, 2)).permute(2, 3, 4, 0, 5, 1).reshape(N, len(weight), 2 * H, 2 * W)


def _folded(weight: Tensor) -> Tensor:
    """(O, C, 3, 3) -> the taps of the four phases, (4, O, C, 2, 2): sums, made in float32 at least."""
    with no_autocast(weight):
        exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
        taps = (beside(exact, _SUMS) @ exact.permute(0, 2, 3, 1).flatten(1, 2)).to(weight.dtype)
    return taps.unflatten(1, (4, 2, 2)).permute(1, 0, 4, 2, 3)
