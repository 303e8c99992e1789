"""`normalize`: instance norm, and batch norm of groups of samples, as one torch.library operation on Triton."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.activation import activate
from lorbms_fast.kernels._common.custom_op import triton_op
from lorbms_fast.kernels._common.normalization.triton import kernels
from lorbms_fast.kernels._common.operation import by_kernels

WHOLE_TILE = {True: 16_384, False: 4_096}
"""Values of a tile up to which a program keeps all positions of its channels in registers: where a group's positions
follow on one another, and where their addresses take registers too."""
TILE = 2_048
"""Values of a tile otherwise."""
PROGRAMS = 2_048
"""Programs that statistics of large maps are divided among, so that every multiprocessor has work."""
MAX_PARTS = 64
INDEXABLE = 2**31
"""Values that a launch can number in a group, with what lies between them."""


@dataclass(frozen=True)
class Tiles:
    """Division of one launch's work."""

    block_c: int
    block_q: int
    parts: int
    """0: a tile holds all positions. Otherwise statistics are taken over this many parts of them."""
    positions_per_part: int
    num_warps: int


def tiles(groups: int, channels: int, positions: int, channels_last: bool, one_sample: bool) -> Tiles:
    """Divide (groups, channels, positions) into tiles that read whole memory transactions.

    Channels are neighbours in memory if `channels_last`, otherwise positions are; of `one_sample`, these are evenly
    spaced.
    """
    values_per_thread = 32 if one_sample else 16
    narrowest = min(16, triton.next_power_of_2(channels)) if channels_last else 1
    block_q = triton.next_power_of_2(positions)
    if narrowest * block_q <= WHOLE_TILE[one_sample]:
        block_c = min(triton.next_power_of_2(channels), max(narrowest, TILE // block_q))
        return Tiles(block_c, block_q, 0, positions, _warps(block_c * block_q, values_per_thread))
    block_c = min(32, triton.next_power_of_2(channels)) if channels_last else 1
    block_q = min(block_q, TILE // block_c)
    blocks = triton.cdiv(positions, block_q)
    parts = min(MAX_PARTS, blocks, triton.cdiv(PROGRAMS, groups * triton.cdiv(channels, block_c)))
    blocks_per_part = triton.cdiv(blocks, parts)
    parts = triton.cdiv(blocks, blocks_per_part)
    return Tiles(block_c, block_q, parts, blocks_per_part * block_q, _warps(block_c * block_q, values_per_thread))


def _warps(values: int, values_per_thread: int) -> int:
    return max(1, min(16, values // (32 * values_per_thread)))


@triton_op("normalize")
def normalize(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, groups: int, eps: float, relu_before: bool, activation: str,
    slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Normalize every channel of each of `groups` consecutive, equal parts of the batch; scale; shift.

    `y = activation(gamma (relu_before(x) - mean) / sqrt(var + eps) + beta)`, x (N, C, *positions) in float32, bfloat16
    or float16 with less than 2^31 values a group, of which instance norm has N and batch norm 1. gamma and beta (C,)
    are both there or neither. The activation is `identity`, `relu`, `leaky_relu` of a slope below zero, `silu`, `gelu`
    or `gelu_tanh`.

    Returns y, of x's shape, dtype and memory layout; mean and biased variance, both (groups, C) float32.
    """
    maps = x.flatten(2)
    y, mean, var = _empty_like_maps(x), *_empty_statistics(x, groups, 2)
    if not groups:  # instance norm of no samples
        return y.view(x.shape), mean, var
    layout = _Layout.of(groups, maps, y)
    x_strides, y_strides = layout.strides
    t = layout.tiles
    flags = (relu_before, activation, layout.samples == 1, t.block_c, t.block_q)
    columns = triton.cdiv(x.shape[1], t.block_c)
    if not t.parts:
        kernels.normalize_whole[(groups, columns)](
            maps,
            gamma, beta, y, mean, var, x_strides, y_strides, *layout.sizes, eps, slope, *flags, num_warps=t.num_warps,
        )  # fmt: skip
        return y.view(x.shape), mean, var
    means, squares = _empty_statistics(x, t.parts * groups, 2)
    kernels.partial_statistics[(groups, columns, t.parts)](
        maps, means, squares, x_strides, *layout.sizes, t.positions_per_part, *(relu_before, *flags[2:]),
        num_warps=t.num_warps,
    )  # fmt: skip
    kernels.normalize_by_parts[(groups * triton.cdiv(layout.positions, t.block_q), columns)](
        maps, gamma, beta, means, squares, y, mean, var, x_strides, y_strides, *layout.sizes, t.parts,
        t.positions_per_part, eps, slope, *flags, num_warps=t.num_warps,
    )  # fmt: skip
    return y.view(x.shape), mean, var


@triton_op("normalize_backward")
def normalize_backward(
    grad: Tensor, x: Tensor, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float,
    relu_before: bool, activation: str, slope: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradient of x, in its layout; and, (groups, C) float32, the sums that are the gradients of gamma and beta."""
    groups = mean.shape[0]
    maps, grad_maps = x.flatten(2), grad.flatten(2)
    dx, sum_grad, sum_grad_n = _empty_like_maps(x), *_empty_statistics(x, groups, 2)
    if not groups:
        return dx.view(x.shape), sum_grad_n, sum_grad
    try:
        layout = _Layout.of(groups, maps, dx, grad_maps)
    except NotImplementedError:  # a part of something larger; the forward was given the rest
        grad_maps = torch.empty_like(dx).copy_(grad_maps)
        layout = _Layout.of(groups, maps, dx, grad_maps)
    x_strides, dx_strides, grad_strides = layout.strides
    strides = (grad_strides, x_strides, dx_strides)
    t = layout.tiles
    flags = (relu_before, activation, layout.samples == 1, t.block_c, t.block_q)
    columns = triton.cdiv(x.shape[1], t.block_c)
    saved = (grad_maps, maps, gamma, beta, mean, var)
    results = (dx, sum_grad, sum_grad_n)
    if not t.parts:
        kernels.backward_whole[(groups, columns)](
            *saved, *results, *strides, *layout.sizes, eps, slope, *flags, num_warps=t.num_warps
        )
        return dx.view(x.shape), sum_grad_n, sum_grad
    sums = _empty_statistics(x, t.parts * groups, 2)
    kernels.partial_gradient_sums[(groups, columns, t.parts)](
        *saved, *sums, *strides[:2], *layout.sizes, t.positions_per_part, eps, slope, *flags, num_warps=t.num_warps
    )
    kernels.backward_by_parts[(groups * triton.cdiv(layout.positions, t.block_q), columns)](
        *saved, *sums, *results, *strides, *layout.sizes, t.parts, eps, slope, *flags, num_warps=t.num_warps
    )
    return dx.view(x.shape), sum_grad_n, sum_grad


@dataclass(frozen=True)
class _Layout:
    """Strides of groups' values in several tensors (N, C, P) of one shape."""

    strides: list[tuple[int, int, int]]
    """(sample, channel, position) of each tensor."""
    channels: int
    samples: int
    """Samples a group."""
    positions_per_sample: int
    tiles: Tiles

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.channels, self.samples, self.positions_per_sample

    @property
    def positions(self) -> int:
        return self.samples * self.positions_per_sample

    @classmethod
    def of(cls, groups: int, first: Tensor, *others: Tensor) -> "_Layout":
        """Describe the first tensor, which decides the tiles, and others."""
        N, C, P = first.shape
        S = N // groups
        strides = [tensor.stride() for tensor in (first, *others)]
        reach = [(S - 1) * s_n + (C - 1) * s_c + (P - 1) * s_p for s_n, s_c, s_p in strides]
        if max(S * C * P, *reach) >= INDEXABLE:  # also where they lie apart, as parts of something larger do
            raise NotImplementedError(
                f"{S} samples of shape {(C, P)} share statistics: 2^31 values or more are not supported"
            )
        if all(s_n == P * s_p for s_n, _, s_p in strides):  # samples follow on one another: one long sample a group
            S, P, strides = 1, S * P, [(S * s_n, s_c, s_p) for s_n, s_c, s_p in strides]
        _, s_c, s_p = strides[0]
        return cls(strides, C, S, P, tiles(groups, C, S * P, s_c < s_p, S == 1))  # type: ignore[arg-type]


def _empty_like_maps(x: Tensor) -> Tensor:
    """(N, C, P), in x's memory layout where that is one of (N, C, P)."""
    return torch.empty_like(x.flatten(2))


def _empty_statistics(x: Tensor, rows: int, count: int) -> list[Tensor]:
    return [x.new_empty((rows, x.shape[1]), dtype=torch.float32) for _ in range(count)]


@normalize.register_fake
def _(x, gamma, beta, groups, eps, relu_before, activation, slope):
    return _empty_like_maps(x).view(x.shape), *_empty_statistics(x, groups, 2)


@normalize_backward.register_fake
def _(grad, x, gamma, beta, mean, var, eps, relu_before, activation, slope):
    return _empty_like_maps(x).view(x.shape), *_empty_statistics(x, mean.shape[0], 2)


def _defined(
    x: Tensor, gamma: Tensor | None, beta: Tensor | None, groups: int, eps: float, relu_before: bool, activation: str,
    slope: float,
) -> Tensor:  # fmt: skip
    """`normalize` in operations of torch's."""
    of_groups = (torch.relu(x) if relu_before else x).unflatten(0, (groups, -1))
    dimensions = (1, *range(3, of_groups.dim()))
    var, mean = torch.var_mean(of_groups, dimensions, correction=0, keepdim=True)
    y = ((of_groups - mean) / torch.sqrt(var + eps)).flatten(0, 1)
    if gamma is not None and beta is not None:
        for_each_channel = (-1, *[1] * (x.dim() - 2))
        y = y * gamma.view(for_each_channel) + beta.view(for_each_channel)
    return activate(y, activation, slope).to(x.dtype)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, gamma, beta, ctx.groups, *ctx.options = inputs
    _, mean, var = output
    ctx.save_for_backward(x, gamma, beta, mean, var)
    ctx.mark_non_differentiable(mean, var)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad: Tensor | None, _mean: None, _var: None) -> Any:
    if grad is None:
        return (None,) * 8
    saved = ctx.saved_tensors
    inputs = saved[:3]
    needed = ctx.needs_input_grad[1:3]

    def by_definition() -> Any:
        options = (ctx.groups, *ctx.options)
        return double_backward.by_definition(lambda *of: _defined(*of, *options), inputs, grad)

    def gradients() -> Any:
        dx, *sums = normalize_backward(grad, *saved, *ctx.options)
        dgamma, dbeta = (
            of_groups.sum(0).to(parameter.dtype) if need else None
            for of_groups, parameter, need in zip(sums, inputs[1:], needed, strict=True)
        )
        return dx, dgamma, dbeta

    return *by_kernels(gradients, by_definition), *[None] * 5


normalize.register_autograd(_backward, setup_context=_save)
