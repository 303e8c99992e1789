"""The resize convolution as four small convolutions.

Along one axis, output 2 r reads three rows of the enlarged image that all come from input row r, and output 2 r + 1
reads two from row r and one from row r + 1. So with taps w0, w1, w2

    y[2 r] = (w0 + w1 + w2) x[r],    y[2 r + 1] = (w0 + w1) x[r] + w2 x[r + 1],    x[H] = 0,

and in two dimensions four outputs take 1 + 2 + 2 + 4 = 9 taps instead of 36, from an input a sixteenth in size. Each of
the four convolutions writes every other row and column of the result.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS_LAST = torch.channels_last


def resize_conv(x: Tensor, weight: Tensor) -> Tensor:
    """(N, C, H, W) and (O, C, 3, 3) -> (N, O, 2 H, 2 W), channels_last; documented at the definition."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    with torch.autocast(device, enabled=False):
        result: Tensor = _Phases.apply(x, *_phases(weight))
    return result


def _phases(weight: Tensor) -> list[Tensor]:
    """The taps of the four phases: (even, even), (even, odd), (odd, even), (odd, odd) rows and columns."""
    w0, w1, w2 = weight.unbind(2)
    rows = (w0 + w1 + w2).unsqueeze(2), torch.stack([w0 + w1, w2], 2)
    return [columns(taps) for taps in rows for columns in (_even, _odd)]


def _even(rows: Tensor) -> Tensor:
    """Taps of even columns: (O, C, k, 3) -> (O, C, k, 1)."""
    return rows.sum(3, keepdim=True)


def _odd(rows: Tensor) -> Tensor:
    """Taps of odd columns: (O, C, k, 3) -> (O, C, k, 2)."""
    return torch.stack([rows[..., 0] + rows[..., 1], rows[..., 2]], 3)


class _Phases(torch.autograd.Function):
    """x and the taps of the four phases -> the result. It cannot be differentiated twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *taps: Tensor) -> Tensor:
        padded = F.pad(x, (0, 1, 0, 1)).contiguous(memory_format=CHANNELS_LAST)
        ctx.save_for_backward(padded, *taps)
        n, _, height, width = x.shape
        shape = (n, taps[0].shape[0], 2 * height, 2 * width)
        y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=CHANNELS_LAST)
        for phase, W in enumerate(taps):
            _every_other(y, phase).copy_(F.conv2d(_read(padded, W), W))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        padded, *taps = ctx.saved_tensors
        needs_x, needs_W = ctx.needs_input_grad[0], any(ctx.needs_input_grad[1:])
        grad_padded = torch.zeros_like(padded) if needs_x else None
        grads_W: list[Tensor | None] = []
        for phase, W in enumerate(taps):
            g, x = _every_other(grad, phase), _read(padded, W)
            to_x, to_W, _ = torch.ops.aten.convolution_backward(
                g, x, W, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [needs_x, needs_W, False]
            )
            if grad_padded is not None:
                _read(grad_padded, W).add_(to_x)
            grads_W.append(to_W)
        return None if grad_padded is None else grad_padded[..., :-1, :-1], *grads_W


def _every_other(y: Tensor, phase: int) -> Tensor:
    """The rows and columns of a result that one phase makes, (N, O, H, W)."""
    row, column = divmod(phase, 2)
    return y[..., row::2, column::2]


def _read(padded: Tensor, W: Tensor) -> Tensor:
    """What taps of one or two rows and columns read of an input padded by one row and column."""
    return padded[..., : padded.shape[2] - 2 + W.shape[2], : padded.shape[3] - 2 + W.shape[3]]
