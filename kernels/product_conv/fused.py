"""A convolution as one matrix product with the weight as it lies in memory, where that is faster than torch's own.

Torch's own brings a weight into another order at every call, forward and backward: where positions are few and channels
many that takes longer than the products, which read the weight once. Both kinds of convolution are between small maps
and large ones. With a row of a matrix for what a small position sees of the large maps, they and their gradients are

    convolution:    small = rows(large) W^T,    its gradient to large = added(small W),     to W: small^T rows(large)
    transposed:     large = added(small W),     its gradient to small = rows(large) W^T,    to W: small^T rows(large)

`added` adds rows up where they were seen: in 16 bits, rounded products in float32.
"""

from functools import cache, lru_cache, partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.autocast import cast, compute_dtype, no_autocast, read_together
from lorbms_fast.kernels._common.cpp import line_stride, plain
from lorbms_fast.kernels._common.cpp.vectors import LANES, vectors_multiply
from lorbms_fast.kernels._common.layout import CHANNELS_LAST, is_channels_last, is_dense
from lorbms_fast.kernels.product_conv import cpp, reference
from lorbms_fast.kernels.product_conv.reference import Sizes

LEAST = 1 << 17
"""Values of a weight, with fewer of which calls take the time."""
MANY = 1 << 19
"""Values of a weight which no core keeps in its own cache."""
MOST = 96
"""Positions, with more of which it never pays."""


class Window(NamedTuple):
    """Which positions of the large maps small ones see, along each axis: from `step * i - before` on, as taps are."""

    step: Sizes
    before: Sizes


def product_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes) -> Tensor:
    """Compute what `reference.py` defines, in the layout that torch's own has."""
    if not _possible(stride, padding):
        return reference.product_conv(x, weight, bias, stride, padding)
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, strict=False)
    size = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in axes)
    if not _takes(x, weight, bias, dtype := compute_dtype(x), 1, size, size):
        return reference.product_conv(x, weight, bias, stride, padding)
    return _applied(_Product, dtype, Window(stride, padding), size, x, weight, bias, False)


def product_conv_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sizes, padding: Sizes, output_padding: Sizes
) -> Tensor:
    """Compute the transposed convolution that `reference.py` defines, in the layout that torch's own has."""
    if not _possible(stride, padding, output_padding):
        return reference.product_conv_transposed(x, weight, bias, stride, padding, output_padding)
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, output_padding, strict=False)
    size = tuple((n - 1) * s - 2 * p + k + more for n, k, s, p, more in axes)
    if _takes(x, weight, bias, dtype := compute_dtype(x), 0, size, x.shape[2:]):
        return _applied(_Product, dtype, Window(stride, padding), size, x, weight, bias, True)
    if bias is not None and _sum_pays(x, weight, bias, dtype):
        return _applied(_OfTorch, dtype, Window(stride, padding), size, x, weight, bias)
    return reference.product_conv_transposed(x, weight, bias, stride, padding, output_padding)


def may_pay(x: Tensor, weight: Sizes, stride: Sizes, padding: Sizes, transposed: bool = False) -> bool:
    """Say whether it pays, by sizes alone, a weight's too."""
    return plain(x) and sizes_pay(x.shape, weight, stride, padding, transposed, compute_dtype(x))


@lru_cache(4096)
def sizes_pay(x: Sizes, weight: Sizes, stride: Sizes, padding: Sizes, transposed: bool, dtype: torch.dtype) -> bool:
    """Say whether a convolution of such sizes pays: asked once, as a small one takes as long as the questions."""
    samples, _, *size = x
    if not transposed:
        size = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, weight[2:], stride, padding, strict=True)]
    return pays(samples * prod(size), weight, dtype, _multiplied(x, weight[2:], dtype))


def _possible(stride: Sizes, padding: Sizes, output_padding: Sizes = ()) -> bool:
    """Say whether there is such a convolution; torch tells callers why there is none."""
    more = zip(output_padding, stride, strict=False)
    return min(stride) > 0 and min(padding) >= 0 and all(0 <= n < step for n, step in more)


def _takes(
    x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, read: int, size: Sizes, small: Sizes
) -> bool:
    """Say whether x and a weight, whose dimension `read` are x's channels, are what loops read, and it pays."""
    return (
        not torch.compiler.is_compiling()  # `pays` is kept
        and x.dim() == weight.dim() == 2 + len(size)
        and x.dim() in CHANNELS_LAST
        and x.shape[1] == weight.shape[read]
        and min(x.numel(), *weight.shape, *size) > 0
        and read_together(dtype, x, weight, bias)
        and weight.dtype is torch.float32
        and weight.shape[0] % LANES == weight.shape[1] % LANES == 0
        and (bias is None or bias.shape == weight.shape[1 - read : 2 - read])
        and pays(len(x) * prod(small), weight.shape, dtype, _multiplied(x.shape, weight.shape[2:], dtype))
        and is_dense(weight)
        and cpp.LOOPS.take_any(x)
    )


@cache
def pays(positions: int, weight: Sizes, dtype: torch.dtype, multiplied: bool) -> bool:
    """Say whether so many small positions are few beside a weight of this shape.

    Where they are, torch's time goes into another order of the weight, and ours into reading it. To copy what a
    position sees, which is as long as a row of the weight, takes as long as two of these. `multiplied`: torch, too, has
    a product for it. Measured on an AMD EPYC with AVX-512, where bfloat16 is multiplied twice as fast.
    """
    values = prod(weight)
    if not vectors_multiply(dtype) or values < LEAST or 2 * positions > weight[0]:
        return False
    many = values >= MANY
    if dtype == torch.float32:
        return positions <= (MOST if many else 48) and (not multiplied or (many and positions >= 12))
    return positions <= (64 if many else 36)


def _multiplied(x: Sizes, taps: Sizes, dtype: torch.dtype) -> bool:
    """Say whether torch multiplies matrices for this: single small samples in float32, by few taps."""
    return dtype == torch.float32 and x[0] == 1 and prod(x) <= 20480 and min(taps[-2:]) <= 3


def sum_may_pay(x: Tensor, dtype: torch.dtype) -> bool:
    """Say whether torch takes longer to sum a gradient for the bias along with the weight's than by itself.

    So it does in 16 bits, up to three times as long as the rest of the backward, and for channels_last images.
    """
    if not torch.is_grad_enabled():
        return False
    return dtype == torch.bfloat16 or (dtype == torch.float32 and is_channels_last(x))


def _sum_pays(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> bool:
    right = sum_may_pay(x, dtype) and read_together(dtype, x, weight, bias) and x.dim() == weight.dim()
    return right and bias.requires_grad and not torch.compiler.is_compiling()


def _applied(
    function: Any, dtype: torch.dtype, window: Window, size: Sizes, x: Tensor, weight: Tensor, bias: Tensor | None,
    *options: bool,
) -> Tensor:  # fmt: skip
    with no_autocast(x):
        result: Tensor = function.apply(window, size, x.to(dtype), weight, bias, *options)
    return result


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, window: Window, size: Sizes, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.window, ctx.transposed = window, transposed
        ctx.definition = partial(_transposed, window, size) if transposed else partial(_convolved, window)
        y = _empty(x, (len(x), weight.shape[1 if transposed else 0], *size), _layout(x, weight))
        (cpp.to_large if transposed else cpp.to_small)(_readable(x), weight, bias, y, *window)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        if double_backward.asked_for(grad):
            return None, None, *double_backward.by_definition(ctx.definition, (x, weight, bias), grad), None
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad[2:]
        g, to_x, to_weight = _readable(grad), None, None
        if needs_x:
            to_x = _empty(x, x.shape, _layout(x, weight))
            (cpp.to_small if ctx.transposed else cpp.to_large)(g, weight, None, to_x, *ctx.window)
        if needs_weight:
            small, large = (_readable(x), g) if ctx.transposed else (g, _readable(x))
            cpp.to_weight(large, small, to_weight := torch.empty_like(weight), *ctx.window)
        return None, None, to_x, to_weight, sums(grad, bias) if needs_bias else None, None


class _OfTorch(torch.autograd.Function):
    """Torch's transposed convolution, whose gradient for the bias is summed apart."""

    @staticmethod
    def forward(ctx: Any, window: Window, size: Sizes, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.window, ctx.size = window, size
        return _transposed(window, size, x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias = ctx.saved_tensors
        if double_backward.asked_for(grad):
            definition = partial(_transposed, ctx.window, ctx.size)
            return None, None, *double_backward.by_definition(definition, (x, weight, bias), grad)
        needs_x, needs_weight, _ = ctx.needs_input_grad[2:]
        step, before = map(list, ctx.window)
        more, ones = list(_more(ctx.window, ctx.size, x, weight)), [1] * len(step)
        wanted = [needs_x, needs_weight, False]
        to_x, to_weight, _ = torch.ops.aten.convolution_backward(
            grad, x, weight.to(x.dtype), None, step, before, ones, True, more, 1, wanted
        )
        return None, None, to_x, to_weight if to_weight is None else to_weight.to(weight.dtype), sums(grad, bias)


def sums(grad: Tensor, bias: Tensor) -> Tensor:
    """The gradient of a convolution's bias."""
    return grad.sum((0, *range(2, grad.dim())), dtype=bias.dtype)


def _empty(like: Tensor, shape: Sizes, layout: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, memory_format=layout, device=like.device)


def _readable(maps: Tensor) -> Tensor:
    return maps if cpp.LOOPS.take_any(maps) else maps.resolve_neg().contiguous()


def _layout(*tensors: Tensor) -> torch.memory_format:
    """The layout that torch gives to what it computes of these."""
    layout = CHANNELS_LAST[tensors[0].dim()]
    return layout if any(map(_in_lines, tensors)) else torch.contiguous_format


def _in_lines(maps: Tensor) -> bool:
    follow = maps.stride(0) >= maps[0].numel()  # torch asks for that of one sample, too
    return maps.stride(1) == 1 and follow and line_stride(maps) is not None and not maps.is_contiguous()


def _convolved(window: Window, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return reference.product_conv(x, *cast(x.dtype, weight, bias), *window)


def _transposed(window: Window, size: Sizes, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    more = _more(window, size, x, weight)
    return reference.product_conv_transposed(x, *cast(x.dtype, weight, bias), *window, more)


def _more(window: Window, size: Sizes, x: Tensor, weight: Tensor) -> Sizes:
    """Positions which a transposed convolution's result of this size has beyond the least."""
    axes = zip(size, x.shape[2:], weight.shape[2:], *window, strict=True)
    return tuple(n - (m - 1) * s + 2 * p - k for n, m, k, s, p in axes)
