"""A convolution that leaves maps their size, with its gradients: of few positions in bfloat16 products of matrices.

oneDNN takes 40 to 140 microseconds to begin a convolution, and multiplies at 90 to 400 GFLOPS of a core where maps have
16 positions or fewer; its products of matrices reach 370 to 490. There is no autograd.
"""

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common.cpp.vectors import has_amx

FEW = 64
"""Positions of a map, times the taps' side: of more, matrices are no faster, nor in float32, which MKL multiplies."""


def conv2d(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
    """(N, C, H, W), (O, C, k, k), (O,) -> (N, O, H, W), k odd; channels_last where x is."""
    if not _few(x, W):
        return F.conv2d(x, W, b, padding=W.shape[-1] // 2)
    return _as_maps(F.linear(_columns(x, W.shape[-1]), W.permute(0, 2, 3, 1).flatten(1), b), x)


def conv2d_backward(grad: Tensor, x: Tensor, W: Tensor, mask: tuple[bool, bool, bool]) -> tuple[Any, Any, Any]:
    """Gradients of x, W and b, as far as the mask asks for them, else None."""
    side, ones = W.shape[-1], [1, 1]
    if not _few(x, W):
        padding = [side // 2] * 2
        result: tuple[Any, Any, Any] = torch.ops.aten.convolution_backward(
            grad, x, W, [len(W)], ones, padding, ones, False, [0, 0], 1, list(mask)
        )
        return result
    to_x = to_W = None
    if mask[0]:
        mirrored = W.flip(2, 3) if side > 1 else W
        to_x = _as_maps(_columns(grad, side) @ mirrored.permute(2, 3, 0, 1).flatten(0, 2), x)
    if mask[1]:
        taps = _columns(grad, 1).t() @ _columns(x, side)
        to_W = taps.unflatten(1, (side, side, -1)).permute(0, 3, 1, 2)
    return to_x, to_W, grad.sum((0, 2, 3)) if mask[2] else None


def _few(x: Tensor, W: Tensor) -> bool:
    return (
        x.dtype == W.dtype == torch.bfloat16
        and x.is_cpu
        and 0 < W.shape[-1] * prod(x.shape[2:]) <= FEW
        and not torch.compiler.is_compiling()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"  # with less torch multiplies bfloat16 one by one
        and not has_amx()  # not measured
    )


def _columns(maps: Tensor, side: int) -> Tensor:
    """What taps read at each position: (N H W, k k C)."""
    rows = maps.permute(0, 2, 3, 1)
    if side > 1:
        around = [side // 2] * 4
        rows = F.pad(rows, [0, 0, *around]).unfold(1, side, 1).unfold(2, side, 1).permute(0, 1, 2, 4, 5, 3)
    return rows.flatten(0, 2).flatten(1)


def _as_maps(rows: Tensor, like: Tensor) -> Tensor:
    """(N H W, C) -> (N, C, H, W), channels_last."""
    return rows.unflatten(0, [like.shape[0], *like.shape[2:]]).permute(0, 3, 1, 2)
