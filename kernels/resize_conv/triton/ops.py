"""The resize convolution as torch.library operations on Triton."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.custom_op import input_precision, triton_op
from lorbms_fast.kernels._common.layout import is_channels_last
from lorbms_fast.kernels._common.operation import by_kernels
from lorbms_fast.kernels._common.partial_sums import empty_partials, reduce_partials
from lorbms_fast.kernels.resize_conv import fused
from lorbms_fast.kernels.resize_conv.triton import kernels

FOLD_BLOCK = 256
POSITIONS_PER_PART = 2_048
"""Positions a program of the weight gradient sums over, at least, before another program shares the work."""
MAX_PARTS = 16
OF_PHASES = [0, 1, 2, 3, 6, 4, 5, 7, 8]
"""Taps in the order in which the four phases of the fused form have them."""
INDEXABLE = 2**31
"""Values that a launch can number; a batch of more maps takes several."""


@triton_op("resize_conv_fold")
def fold(first: Tensor, others: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Folded taps (9, C, O) of several weights (O, C, 3, 3), all in one launch."""
    taps = _empty_taps(first, others, dtype)
    _launch_for_all(kernels.fold_taps, [first, *others], taps, of_strides=[first, *others])
    return taps


@triton_op("resize_conv_unfold")
def unfold(first: Tensor, others: list[Tensor], channels_last: list[bool], dtype: torch.dtype) -> list[Tensor]:
    """Gradients of several weights (O, C, 3, 3), contiguous or channels_last each, from those of their taps."""
    dws = _empty_weights(first, others, channels_last, dtype)
    _launch_for_all(kernels.unfold_gradients, [grad.contiguous() for grad in (first, *others)], dws, of_strides=dws)
    return dws


def _launch_for_all(program: Any, sources: list[Tensor], results: list[Tensor], of_strides: list[Tensor]) -> None:
    Os, Cs = ([weight.shape[i] for weight in of_strides] for i in (0, 1))
    strides = tuple(stride for weight in of_strides for stride in weight.stride())
    largest = max(O * C for O, C in zip(Os, Cs, strict=True))
    program[triton.cdiv(largest, FOLD_BLOCK), len(Os)](
        tuple(sources), tuple(results), strides, tuple(Os), tuple(Cs), len(Os), FOLD_BLOCK
    )


@triton_op("resize_conv")
def resize_conv(x: Tensor, taps: Tensor) -> Tensor:
    """(N, C, H, W) and folded taps (9, C, O) -> (N, O, 2 H, 2 W), channels_last if x is."""
    _, C, H, W = x.shape
    O = taps.shape[2]
    y = _empty_result(x, taps)
    for of_launch in _launches(x, O):
        positions = len(x[of_launch]) * H * W

        def grid(tile: dict[str, int], positions: int = positions) -> tuple[int, int]:
            return triton.cdiv(positions, tile["BLOCK_M"]), triton.cdiv(O, tile["BLOCK_O"])

        kernels.forward[grid](
            x[of_launch], taps, y[of_launch], x.stride(), y.stride(), positions, C, O, H, W, input_precision(x.dtype)
        )
    return y


def _launches(x: Tensor, O: int, *others: Tensor) -> list[slice]:
    """The samples of each launch: all, unless x or its O maps of twice the size are too large.

    Samples may lie apart in memory, as those of a part of larger maps do, and so may their values: then what is between
    them counts, in x and in others that are read.
    """
    N, C, H, W = x.shape
    apart = (tensor.stride(0) for tensor in (x, *others) if N > 1)
    reach = (1 + sum((n - 1) * by for n, by in zip(t.shape[1:], t.stride()[1:], strict=True)) for t in (x, *others))
    most = (INDEXABLE - 1) // max(C * H * W, 4 * O * H * W, *apart, *reach)
    if not most:
        raise NotImplementedError(f"{tuple(x.shape)} to {O} maps of twice the size: 2^31 values or more of one sample")
    return [slice(first, first + most) for first in range(0, N, most)]


@triton_op("resize_conv_backward")
def backward(grad: Tensor, taps: Tensor, x: Tensor, of_x: bool, of_taps: bool) -> tuple[Tensor, Tensor]:
    """Gradients of x, in its memory layout, and of the folded taps, (9, C, O); empty where not needed."""
    N, C, H, W = x.shape
    O = grad.shape[1]
    dx, dtaps = _empty_gradients(grad, taps, x, of_x, of_taps)
    try:
        launches = _launches(x, O, grad)
    except NotImplementedError:  # a part of something larger; the forward was given the rest
        grad = grad.contiguous()
        launches = _launches(x, O)
    parts = min(MAX_PARTS, triton.cdiv(N * H * W, POSITIONS_PER_PART)) if of_taps else 0
    partials = dtaps[None] if len(launches) * parts <= 1 else empty_partials(dtaps, len(launches) * parts)
    for i, of_launch in enumerate(launches):
        positions = len(x[of_launch]) * H * W

        def grid(tile: dict[str, int], positions: int = positions) -> tuple[int]:
            columns = triton.cdiv(C, tile["BLOCK_C"])
            data_programs = triton.cdiv(positions, tile["BLOCK_M"]) * columns * of_x
            return (data_programs + 9 * parts * columns * triton.cdiv(O, tile["BLOCK_O"]),)

        kernels.gradients[grid](
            grad[of_launch], taps, x[of_launch], dx[of_launch] if of_x else dx, partials[i * parts :], grad.stride(),
            x.stride(), dx.stride() if of_x else x.stride(), positions, C, O, H, W,
            triton.cdiv(positions, max(parts, 1)), int(of_x), parts, input_precision(x.dtype),
        )  # fmt: skip
    if len(partials) > 1:
        reduce_partials(partials, dtaps)
    return dx, dtaps


@resize_conv.register_fake
def _empty_result(x: Tensor, taps: Tensor) -> Tensor:
    N, _, H, W = x.shape
    shape = (N, taps.shape[2], 2 * H, 2 * W)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=_layout(is_channels_last(x)))


@fold.register_fake
def _empty_taps(first: Tensor, others: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [first.new_empty((9, weight.shape[1], weight.shape[0]), dtype=dtype) for weight in (first, *others)]


@unfold.register_fake
def _empty_weights(first: Tensor, others: list[Tensor], channels_last: list[bool], dtype: torch.dtype) -> list[Tensor]:
    return [
        torch.empty((O, C, 3, 3), dtype=dtype, device=first.device, memory_format=_layout(last))
        for (_, C, O), last in zip([grad.shape for grad in (first, *others)], channels_last, strict=True)
    ]


def _layout(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


@backward.register_fake
def _empty_gradients(grad: Tensor, taps: Tensor, x: Tensor, of_x: bool, of_taps: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x) if of_x else x.new_empty(0), torch.empty_like(taps) if of_taps else taps.new_empty(0)


def _save_weights(ctx: Any, inputs: tuple[Tensor, list[Tensor], torch.dtype], output: list[Tensor]) -> None:
    first, others, _ = inputs
    ctx.channels_last = [is_channels_last(weight) for weight in (first, *others)]
    ctx.dtype = first.dtype


def _backward_of_fold(ctx: Any, grads: list[Tensor]) -> Any:
    first, *others = by_kernels(
        lambda: unfold(grads[0], list(grads[1:]), ctx.channels_last, ctx.dtype),
        lambda: [fused.unfolded(grad[OF_PHASES].transpose(1, 2), ctx.dtype) for grad in grads],
    )
    return first, others, None


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _defined(x: Tensor, taps: Tensor) -> Tensor:
    """`resize_conv` in operations of torch's."""
    return fused.phases(F.pad(x, (0, 1, 0, 1)), taps[OF_PHASES].permute(2, 0, 1))


def _backward(ctx: Any, grad: Tensor) -> Any:
    x, taps = ctx.saved_tensors
    of_x, of_taps = ctx.needs_input_grad

    def gradients() -> Any:
        dx, dtaps = backward(grad, taps, x, of_x, of_taps)
        return dx if of_x else None, dtaps if of_taps else None

    return by_kernels(gradients, partial(double_backward.by_definition, _defined, (x, taps), grad))


fold.register_autograd(_backward_of_fold, setup_context=_save_weights)
resize_conv.register_autograd(_backward, setup_context=_save)
