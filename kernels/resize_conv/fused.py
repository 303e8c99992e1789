"""The resize convolution as four products, or as four small convolutions.

Along one axis, output 2 r reads three rows of the enlarged image that all come from input row r, and output 2 r + 1
reads two from row r and one from row r + 1. So with taps w0, w1, w2

    y[2 r] = (w0 + w1 + w2) x[r],    y[2 r + 1] = (w0 + w1) x[r] + w2 x[r + 1],    x[H] = 0,

and in two dimensions four outputs take 1 + 2 + 2 + 4 = 9 taps instead of 36, from an input a sixteenth in size. Each of
the four convolutions writes every other row and column of the result.

With p[r] = (w0 + w1) x[r] and q[r] = w2 x[r], this is

    y[2 r] = p[r] + q[r],    y[2 r + 1] = p[r] + q[r + 1],    q[H] = 0,

and in two dimensions four outputs take 4 products, those of the last phase's taps. They are one 1x1 convolution, whose
maps a C++ loop adds up; without such loops it takes the four convolutions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.autocast import no_autocast
from lorbms_fast.kernels._common.constants import beside
from lorbms_fast.kernels._common.conv2d_backward import conv2d_backward
from lorbms_fast.kernels._common.layout import new_maps
from lorbms_fast.kernels.resize_conv import cpp

CHANNELS_LAST = torch.channels_last


def resize_conv(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, H, W) and folded taps (O, 9, C) -> (N, O, 2 H, 2 W), channels_last; documented in `reference.py`."""
    with no_autocast(x):
        x = x.contiguous(memory_format=CHANNELS_LAST)
        if cpp.LOOPS.take(x):
            result: Tensor = _Products.apply(x, taps)
            return result
        padded = F.pad(x, (0, 1, 0, 1)).contiguous(memory_format=CHANNELS_LAST)
        result = _Phases.apply(padded, taps)
    return result


# The taps of a phase along one axis, of w0, w1, w2: one for even rows, two for odd ones.
_EVEN, _ODD = ((1, 1, 1),), ((1, 1, 0), (0, 0, 1))
_PHASES = tuple((rows, columns) for rows in (_EVEN, _ODD) for columns in (_EVEN, _ODD))
SUMS = tuple(
    tuple(r * c for r in row for c in column) for rows, columns in _PHASES for row in rows for column in columns
)
_LAST_PHASE = len(SUMS) - 4


def fold(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The nine taps of all four phases, each a sum of taps of the weight: (O, 9, C)."""
    with no_autocast(weight):
        if cpp.take(weight, dtype):
            taps: Tensor = _Fold.apply(weight, dtype)
            return taps.transpose(0, 1)
        return (beside(weight, SUMS) @ weight.permute(0, 2, 3, 1).flatten(1, 2)).to(dtype)


class _Fold(torch.autograd.Function):
    """A weight -> its taps, (9, O, C): those of a phase, which products read, lie together."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.like = weight.shape, weight.dtype
        return cpp.fold(weight, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        shape, dtype = ctx.like
        if double_backward.asked_for(grad):
            return unfolded(grad, dtype), None
        to_weight = torch.empty(shape, dtype=dtype, device=grad.device, memory_format=CHANNELS_LAST)
        cpp.unfold(grad.contiguous(), to_weight)
        return to_weight, None


def unfolded(grad: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient of a weight from that of its taps, (9, O, C): folding transposed."""
    with no_autocast(grad):
        grad = grad.to(dtype).transpose(0, 1)
        lines = beside(grad, SUMS).t() @ grad
    return lines.reshape(len(lines), 3, 3, lines.shape[-1]).permute(0, 3, 1, 2)


def _kernels(taps: Tensor) -> list[Tensor]:
    """(O, 9, C) -> the kernels of the phases, (O, C, 1 or 2, 1 or 2), as views."""
    sizes = [(len(rows), len(columns)) for rows, columns in _PHASES]
    parts = taps.split([height * width for height, width in sizes], 1)
    return [part.unflatten(1, size).permute(0, 3, 1, 2) for part, size in zip(parts, sizes, strict=True)]


class _Products(torch.autograd.Function):
    """Input and taps -> the result, by the products of the last phase's taps; the others' are sums of theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(x, taps)
        return cpp.spread(F.conv2d(x, _pointwise(taps)).contiguous(memory_format=CHANNELS_LAST))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, taps = ctx.saved_tensors
        if double_backward.asked_for(grad):
            return double_backward.by_definition(_by_phases, (x, taps), grad)
        to_products = cpp.gather(grad.contiguous(memory_format=CHANNELS_LAST))
        needs_x, needs_taps = ctx.needs_input_grad
        to_x, to_last, _ = conv2d_backward(to_products, x, _pointwise(taps), (needs_x, needs_taps, False))
        to_taps = None
        if needs_taps:
            to_taps = torch.zeros_like(taps)
            to_taps[:, _LAST_PHASE:] = to_last.view(4, *taps[:, 0].shape).transpose(0, 1)
        return to_x, to_taps


def _pointwise(taps: Tensor) -> Tensor:
    """(O, 9, C) -> the last phase's taps as the kernel of one convolution, (4 O, C, 1, 1)."""
    return taps[:, _LAST_PHASE:].transpose(0, 1).flatten(0, 1)[:, :, None, None]


def _by_phases(x: Tensor, taps: Tensor) -> Tensor:
    return phases(F.pad(x, (0, 1, 0, 1)), taps)


def phases(padded: Tensor, taps: Tensor) -> Tensor:
    """An input padded by a row and a column, and the taps of the four phases -> the result."""
    height, width = padded.shape[2:]
    y = new_maps(padded, len(taps), 2 * (height - 1), 2 * (width - 1))
    for phase, W in enumerate(_kernels(taps)):
        _every_other(y, phase).copy_(F.conv2d(_read(padded, W), W))
    return y


class _Phases(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padded: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(padded, taps)
        return phases(padded, taps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        padded, taps = ctx.saved_tensors
        if double_backward.asked_for(grad):
            return double_backward.by_definition(phases, (padded, taps), grad)
        needs_padded, needs_taps = ctx.needs_input_grad
        grad_padded = torch.zeros_like(padded) if needs_padded else None
        of_phases = []
        for phase, W in enumerate(_kernels(taps)):
            g, x = _every_other(grad, phase), _read(padded, W)
            to_read, to_W, _ = conv2d_backward(g, x, W, (needs_padded, needs_taps, False))
            if grad_padded is not None:
                _read(grad_padded, W).add_(to_read)
            if needs_taps:
                of_phases.append(to_W.permute(0, 2, 3, 1).flatten(1, 2))
        return grad_padded, torch.cat(of_phases, 1) if needs_taps else None


def _every_other(y: Tensor, phase: int) -> Tensor:
    """The rows and columns of a result that one phase makes, (N, O, H, W)."""
    row, column = divmod(phase, 2)
    return y[..., row::2, column::2]


def _read(padded: Tensor, W: Tensor) -> Tensor:
    """Slice of an input padded by one row and column that taps of one or two rows and columns read."""
    return padded[..., : padded.shape[2] - 2 + W.shape[2], : padded.shape[3] - 2 + W.shape[3]]
