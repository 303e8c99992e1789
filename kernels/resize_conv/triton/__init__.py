"""The resize convolution as torch.library operations on Triton."""

from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels.operation import operation
from lorbms_fast.kernels.resize_conv.triton import programs

FOLD_BLOCK = 256
POSITIONS_PER_PART = 2_048
"""Positions a program of the weight gradient sums over, at least, before another program shares the work."""
MAX_PARTS = 16


def resize_conv(x: Tensor, weight: Tensor) -> Tensor:
    """(N, C, H, W) and (O, C, 3, 3) -> (N, O, 2 H, 2 W); documented at the definition. Autocast as a convolution's."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    y, _ = enlarge(x, weight)
    return y


@operation("resize_conv")
def enlarge(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """y (N, O, 2 H, 2 W), channels_last if x is; and the folded taps (9, C, O), which the backward reads again."""
    N, C, H, W = x.shape
    O = weight.shape[0]
    if N * max(C, 4 * O) * H * W >= 2**31:
        raise ValueError(f"{tuple(x.shape)} to {O} maps of twice the size: 2^31 values or more are not supported")
    y, taps = _empty_result(x, O), _empty_taps(x, weight)
    programs.fold_taps[(triton.cdiv(O * C, FOLD_BLOCK),)](weight, taps, weight.stride(), O, C, FOLD_BLOCK)

    def grid(tile: dict[str, int]) -> tuple[int, int]:
        return triton.cdiv(N * H * W, tile["BLOCK_M"]), triton.cdiv(O, tile["BLOCK_O"])

    programs.forward[grid](x, taps, y, x.stride(), y.stride(), N * H * W, C, O, H, W, _precision(x))
    return y, taps


@operation("resize_conv_data_gradient")
def data_gradient(grad: Tensor, taps: Tensor, x: Tensor) -> Tensor:
    """Gradient of x, in its memory layout."""
    N, C, H, W = x.shape
    dx = torch.empty_like(x)

    def grid(tile: dict[str, int]) -> tuple[int, int]:
        return triton.cdiv(N * H * W, tile["BLOCK_M"]), triton.cdiv(C, tile["BLOCK_C"])

    programs.data_gradient[grid](
        grad, taps, dx, grad.stride(), dx.stride(), N * H * W, C, grad.shape[1], H, W, _precision(x)
    )
    return dx


@operation("resize_conv_weight_gradient")
def weight_gradient(grad: Tensor, x: Tensor, channels_last: bool) -> Tensor:
    """Gradient of the weight, (O, C, 3, 3), contiguous or channels_last."""
    N, C, H, W = x.shape
    O = grad.shape[1]
    positions = N * H * W
    parts = min(MAX_PARTS, triton.cdiv(positions, POSITIONS_PER_PART))
    positions_per_part = triton.cdiv(positions, parts)
    partial = x.new_empty((parts, 9, C, O), dtype=torch.float32)

    def grid(tile: dict[str, int]) -> tuple[int, int, int]:
        return triton.cdiv(C, tile["BLOCK_C"]), triton.cdiv(O, tile["BLOCK_O"]), 9 * parts

    programs.weight_gradient[grid](
        grad, x, partial, grad.stride(), x.stride(), positions, C, O, H, W, positions_per_part, _precision(x)
    )
    dw = _empty_weight(x, O, channels_last)
    programs.unfold_gradient[(triton.cdiv(O * C, FOLD_BLOCK),)](partial, dw, dw.stride(), O, C, parts, FOLD_BLOCK)
    return dw


def _precision(x: Tensor) -> str:
    """Of float32 products: what torch's own convolutions are allowed."""
    return "ieee" if x.dtype == torch.float32 and not torch.backends.cudnn.allow_tf32 else "tf32"


def _empty_result(x: Tensor, O: int) -> Tensor:
    N, _, H, W = x.shape
    layout = _layout(_is_channels_last(x))
    return torch.empty((N, O, 2 * H, 2 * W), dtype=x.dtype, device=x.device, memory_format=layout)


def _empty_weight(x: Tensor, O: int, channels_last: bool) -> Tensor:
    shape = (O, x.shape[1], 3, 3)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(channels_last))


def _is_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def _layout(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _empty_taps(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty((9, weight.shape[1], weight.shape[0]))


@enlarge.register_fake
def _(x, weight):
    return _empty_result(x, weight.shape[0]), _empty_taps(x, weight)


@data_gradient.register_fake
def _(grad, taps, x):
    return torch.empty_like(x)


@weight_gradient.register_fake
def _(grad, x, channels_last):
    return _empty_weight(x, grad.shape[1], channels_last)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    x, weight = inputs
    _, taps = output
    ctx.channels_last = _is_channels_last(weight)
    ctx.save_for_backward(x, taps)
    ctx.mark_non_differentiable(taps)


def _backward(ctx: Any, grad: Tensor, _taps: Tensor) -> Any:
    x, taps = ctx.saved_tensors
    of_x, of_weight = ctx.needs_input_grad
    dx = data_gradient(grad, taps, x) if of_x else None
    return dx, weight_gradient(grad, x, ctx.channels_last) if of_weight else None


enlarge.register_autograd(_backward, setup_context=_save)
