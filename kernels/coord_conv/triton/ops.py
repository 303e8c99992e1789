"""Coordinates as channels in one launch: maps and coordinates out, channels_last, in the dtype that convolves them."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorbms_fast.kernels.operation import operation

BLOCK = 1024


@triton.jit
def _along(place, size):
    """Place 0 .. size - 1 on a line from -1 to 1; -1 where there is but one."""
    return -1 + 2 * place.to(tl.float32) / tl.maximum(size - 1, 1)


@triton.jit
def append_program(x_ptr, y_ptr, x_strides, values, C, H, W, BLOCK: tl.constexpr):
    """A block of y's values, (image, row, column, channel) with two channels more than x."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    c, column, row = i % (C + 2), i // (C + 2) % W, i // (C + 2) // W % H
    image = (i // (C + 2) // W // H).to(tl.int64)
    at = image * x_strides[0] + c * x_strides[1] + row * x_strides[2] + column * x_strides[3]
    x = tl.load(x_ptr + at, mask=(i < values) & (c < C), other=0).to(tl.float32)
    y = tl.where(c == C, _along(column, W), tl.where(c == C + 1, _along(row, H), x))
    tl.store(y_ptr + i, y.to(y_ptr.dtype.element_ty), mask=i < values)


@operation("append_coordinates")
def append_coordinates(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, C, H, W) -> (N, C + 2, H, W), channels_last, of `dtype`; documented at the definition."""
    _, C, H, W = x.shape
    y = _empty_result(x, dtype)
    if y.numel() >= 2**31:
        raise ValueError(f"{tuple(x.shape)}: 2^31 values or more are not supported")
    append_program[(triton.cdiv(y.numel(), BLOCK),)](x, y, x.stride(), y.numel(), C, H, W, BLOCK)
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
