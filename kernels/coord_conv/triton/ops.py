"""Coordinates as channels in one launch: maps and coordinates out, channels_last, in the dtype that convolves them."""

from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.custom_op import triton_op
from lorbms_fast.kernels.coord_conv.triton import kernels

BLOCK = 1024


@triton_op("append_coordinates")
def append_coordinates(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, H, W) -> (N, C + 2, H, W), channels_last, of `dtype`; documented in `reference.py`."""
    _, C, H, W = x.shape
    y = _empty_result(x, dtype)
    if y.numel() >= 2**31:
        raise NotImplementedError(f"{tuple(x.shape)}: 2^31 values or more are not supported")
    kernels.append[(triton.cdiv(y.numel(), BLOCK),)](x, y, x.stride(), y.numel(), C, H, W, BLOCK)
    return y


@append_coordinates.register_fake
def _empty_result(x: Tensor, dtype: torch.dtype) -> Tensor:
    N, C, H, W = x.shape
    return x.new_empty((N, H, W, C + 2), dtype=dtype).permute(0, 3, 1, 2)


def _save(ctx: Any, inputs: tuple[Tensor, torch.dtype], output: Tensor) -> None:
    ctx.dtype = inputs[0].dtype


def _backward(ctx: Any, grad: Tensor) -> Any:
    return grad[:, :-2].to(ctx.dtype), None


append_coordinates.register_autograd(_backward, setup_context=_save)
