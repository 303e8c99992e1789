"""The convolution by Winograd's algorithm where that is faster, and by `product_conv`, or torch's own, elsewhere.

Loops read channels_last maps, and rearrange contiguous ones in the cache. Volumes are copied, and copied back, and the
backward copies x again, so that it keeps no more than torch's.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.arrange import arranged
from lorbms_fast.kernels._common.autocast import cast, compute_dtype, no_autocast, read_together
from lorbms_fast.kernels._common.cpp import line_stride, plain
from lorbms_fast.kernels._common.layout import CHANNELS_LAST, is_dense, new_maps
from lorbms_fast.kernels._common.winograd import cpp
from lorbms_fast.kernels.product_conv import fused as product
from lorbms_fast.kernels.winograd_conv import reference
from lorbms_fast.kernels.winograd_conv.reference import Padding

MANY = 1 << 21
"""Products of a position's channels in and out, over a batch, from which on to ask takes no time beside them."""
TAPS = (3, 3), (3, 3, 3), (1, 3, 3)
"""Sizes of those that loops know."""


def winograd_conv(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, edges: str = "zeros") -> Tensor:
    """Compute what `reference.py` defines, in the layout that torch's own has."""
    if edges not in cpp.EDGES or (edges != "zeros" and padding != (1, 1)):  # those loops do not see
        x, padding, edges = reference.padded(x, padding, edges), (0,) * len(padding), "zeros"
    result = by_loops(x, weight, bias, padding, edges)
    if result is None and edges == "zeros":
        # which may pay where positions are few
        return product.product_conv(x, weight, bias, (1,) * len(padding), padding)
    return reference.winograd_conv(x, weight, bias, padding, edges) if result is None else result


def may_pay(x: Tensor, weight: tuple[int, ...], padding: Padding, edges: str) -> bool:
    """Say whether loops, or a product, pay by sizes alone, a weight's too: asked once, as at `sizes_pay`."""
    contiguous = x.dim() > 3 and x.stride(1) != 1
    return plain(x) and _may_pay(x.shape, contiguous, weight, tuple(padding), edges, compute_dtype(x))


@lru_cache(4096)
def _may_pay(
    x: tuple[int, ...], contiguous: bool, weight: tuple[int, ...], padding: Padding, edges: str, dtype: torch.dtype
) -> bool:
    size = [n + 2 * more - k + 1 for n, more, k in zip(x[2:], padding, weight[2:], strict=True)]
    if min(size) < 1:
        return False
    if cpp.pays(torch.Size((x[0], weight[0], *size)), torch.Size(weight), dtype, True, contiguous):
        return True
    return edges == "zeros" and product.sizes_pay(x, weight, (1,) * len(padding), padding, False, dtype)


def by_loops(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, edges: str = "zeros", doubled: bool = False
) -> Tensor | None:
    """Compute it where loops do, and faster than torch; None elsewhere."""
    if torch.compiler.is_compiling() or edges not in cpp.EDGES:
        return None
    sight = cpp.Sight(cpp.EDGES.index(edges), int(doubled))
    if not _pays(x, weight, bias, padding, sight):
        return None
    dtype = compute_dtype(x)
    with no_autocast(x):
        result: Tensor = _Convolution.apply(padding, sight, x.to(dtype), weight, bias)
    return result


def pads(padding: Padding, taps: Sequence[int]) -> bool:
    """Say whether loops pad so: alike on all sides of a slice, and so that no result is of zeros alone."""
    alike = len(padding) == len(taps) and padding[-1] == padding[-2]
    return alike and all(0 <= zeros < size for zeros, size in zip(padding, taps, strict=True))


def _pays(x: Tensor, weight: Tensor, bias: Tensor | None, padding: Padding, sight: cpp.Sight) -> bool:
    """Say whether these are what loops read, and read fast."""
    dtype, contiguous = compute_dtype(x), x.dim() > 3 and x.stride(1) != 1
    return (
        x.dim() == weight.dim() == 2 + len(padding)
        and x.shape[1] == weight.shape[1]
        and weight.shape[2:] in TAPS
        and pads(padding, weight.shape[2:])
        and (sight == cpp.PLAIN or (padding == (1, 1) and min(sight.size(x)) > 1))
        and min(size := _size(x, weight, padding, sight)) > 0
        and cpp.pays(torch.Size((len(x), len(weight), *size)), weight.shape, dtype, True, contiguous)
        and read_together(dtype, x, weight, bias)
        and (bias is None or bias.shape == weight.shape[:1])
        and cpp.LOOPS.take_any(x)
        and is_dense(weight)
    )


def _size(x: Tensor, weight: Tensor, padding: Padding, sight: cpp.Sight) -> list[int]:
    """Sizes of the result, without samples and channels."""
    return [size + 2 * more - k + 1 for size, more, k in zip(sight.size(x), padding, weight.shape[2:], strict=True)]


def _in_lines(maps: Tensor) -> bool:
    """Say whether channels, of which there are several, are neighbours: as channels_last, and as some of these."""
    return maps.stride(1) == 1 and line_stride(maps) is not None


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, padding: Padding, sight: cpp.Sight, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.padding, ctx.sight = padding, sight
        y = _new(x, _layout(x, weight), len(weight), *_size(x, weight, padding, sight))
        cpp.conv(_readable(x), weight, bias, y, padding, False, False, sight)
        return arranged(y, _layout(x, weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        if double_backward.asked_for(grad) or not cpp.LOOPS.take_any(g := _readable(grad)):
            definition = partial(_defined, ctx.padding, ctx.sight)
            return None, None, *double_backward.by_definition(definition, (x, weight, bias), grad)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[2:]
        to_x = to_weight = to_bias = None
        if needs_weight:
            to_weight = torch.empty_like(weight)
            sums = [x.new_empty(len(weight), dtype=torch.float32)] if needs_bias else []
            cpp.backward_taps(g, _readable(x), to_weight, ctx.padding, False, ctx.sight, sums)
            to_bias = sums[0].to(bias.dtype) if sums else None
        elif needs_bias:
            to_bias = product.sums(grad, bias)
        if needs_x:
            to_x = _new(x, _layout(x, weight), *x.shape[1:])
            _backward_input(g, weight, to_x, ctx.padding, ctx.sight)
            del g  # one of the copies less at a time
            to_x = arranged(to_x, _layout(x, weight))
        return None, None, to_x, to_weight, to_bias


def _backward_input(grad: Tensor, weight: Tensor, to_x: Tensor, padding: Padding, sight: cpp.Sight) -> None:
    """Write into `to_x`, by way of all that was seen of it."""
    if sight == cpp.PLAIN:
        return cpp.backward_input(grad, weight, to_x, padding)
    around = min(sight.edges, 1)  # zeros have no gradient
    seen = new_maps(to_x, to_x.shape[1], *(size + 2 * around for size in sight.size(to_x)))
    cpp.backward_input(grad, weight, seen, (0, 0) if around else padding)
    cpp.backward_sight(seen, to_x, around, sight)


def _readable(maps: Tensor) -> Tensor:
    """Maps in which channels are neighbours, or those of images that lie in rows."""
    as_they_are = _in_lines(maps) or (cpp.in_rows(maps.shape) and maps.is_contiguous())
    return maps if as_they_are else arranged(maps, CHANNELS_LAST[maps.dim()])


def _new(like: Tensor, layout: torch.memory_format, channels: int, *size: int) -> Tensor:
    """Maps to write, in this layout where loops can."""
    shape = torch.Size((len(like), channels, *size))
    if layout is torch.contiguous_format and cpp.in_rows(shape):
        return like.new_empty(shape)
    return new_maps(like, channels, *size)


def _layout(*tensors: Tensor) -> torch.memory_format:
    """The layout that torch gives to what it computes of these."""
    return CHANNELS_LAST[tensors[0].dim()] if any(map(_in_lines, tensors)) else torch.contiguous_format


def _defined(padding: Padding, sight: cpp.Sight, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    edges, doubled = cpp.EDGES[sight.edges], bool(sight.doubled)
    return reference.winograd_conv(x, *cast(x.dtype, weight, bias), padding, edges, doubled)
