"""2x2 max pooling that remembers in one byte, not eight, which of the four it was."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.layout import is_channels_last
from lorbms_fast.kernels.max_pool import cpp, reference

MANY = 1 << 19
"""Values of channels_last maps from which on loops are quicker than torch's own, one after the other."""
FEW, FEW_TRAINED = 1 << 14, 1 << 15
"""Values of contiguous maps from which on loops are quicker than torch's own, without and with gradients."""
SOME, SOME_TRAINED = 1 << 16, 1 << 17
"""Values of contiguous maps from which on passes over corners are quicker than torch's own, without and with gradients.

Each pass is a call or several of torch's.
"""


def by_loops(x: Tensor) -> bool:
    """Say whether C++ loops pool these maps: not float16, whose values take long to convert."""
    if is_channels_last(x):
        return x.dtype != torch.float16 and cpp.LOOPS.take(x)
    return cpp.take_rows(x, x.shape[-1] // 2)


def max_pool2x2(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, H // 2, W // 2); documented in `reference.py`."""
    if torch.compiler.is_compiling():  # whose pool remembers in few bytes too
        return reference.max_pool2x2(x)
    result: Tensor = _MaxPool.apply(x)
    return result


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, places = pooled(x)
        ctx.save_for_backward(places)
        ctx.size = x.shape[2:]
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (places,) = ctx.saved_tensors
        if double_backward.asked_for(grad):
            return spread(grad, places, *ctx.size)
        return unpooled(grad, places, *ctx.size)


def spread(grad: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    """`unpooled` in operations of torch's that can be differentiated."""
    N, C, h, w = grad.shape
    if places.dtype != torch.uint8:
        zeros = grad.new_zeros(N, C, height * width)
        return zeros.scatter(2, places.flatten(2).long(), grad.flatten(2)).view(N, C, height, width)
    corners = torch.stack([torch.where(places == i, grad, 0) for i in range(4)], -1).view(N, C, h, w, 2, 2)
    squares = corners.permute(0, 1, 2, 4, 3, 5).reshape(N, C, 2 * h, 2 * w)
    return F.pad(squares, (0, width - 2 * w, 0, height - 2 * h))


def pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    """The result, and where the greatest of each square was, as the form that `x` takes says it.

    The first of equal values counts, as in torch's own pool, and what is not a number before all numbers; of several
    that are none, torch's may be another.
    """
    if by_loops(x):
        y, places = cpp.pooled(x)
        return y, places
    if is_channels_last(x):
        # torch's own is faster here than passes over corners. Its places are positions in the map, of eight bytes.
        y, positions = F.max_pool2d(x, 2, return_indices=True)
        few = x.shape[2] * x.shape[3] <= torch.iinfo(torch.int16).max
        return y, positions.to(torch.int16 if few else torch.int32)
    upper_left, upper_right, lower_left, lower_right = _corners(x)
    upper, lower = torch.maximum(upper_left, upper_right), torch.maximum(lower_left, lower_right)
    right = torch.where(lower > upper, lower_right > lower_left, upper_right > upper_left)
    return torch.maximum(upper, lower), (lower > upper).to(torch.uint8).mul_(2).add_(right)


def unpooled(grad: Tensor, places: Tensor, height: int, width: int) -> Tensor:
    """Gradient of x, (N, C, height, width), from that of the result and the places that `pooled` gave."""
    shape = *grad.shape[:2], height, width
    if places.dtype != torch.uint8:
        # All that torch asks of what was pooled is its shape and layout.
        maps = torch.empty(shape, dtype=grad.dtype, device=grad.device, memory_format=torch.channels_last)
        squares: tuple[Any, ...] = [2, 2], [2, 2], [0, 0], [1, 1], False
        return torch.ops.aten.max_pool2d_with_indices_backward(grad, maps, *squares, places.long())
    in_lines = is_channels_last(places)
    grad = grad.contiguous(memory_format=torch.channels_last if in_lines else torch.contiguous_format)
    if cpp.LOOPS.take(grad) if in_lines else cpp.take_rows(grad, grad.shape[-1]):
        to_x: Tensor = cpp.unpooled(grad, places, height, width)
        return to_x
    to_x = torch.zeros(shape, dtype=grad.dtype, device=grad.device)  # both are contiguous
    for i, corner in enumerate(_corners(to_x)):
        torch.mul(grad, places == i, out=corner)
    return to_x


def _corners(x: Tensor) -> list[Tensor]:
    """Views of the four places of every square, in reading order."""
    H, W = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    return [x[:, :, i:H:2, j:W:2] for i in range(2) for j in range(2)]
