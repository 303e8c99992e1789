"""The block on one shared stack of maps, normalized again where they are read.

A map's mean and variance over the batch are the same for every layer that reads it; only scale and shift are the
layer's own. So they are computed once, when the map is written, and what a layer reads,

    a_l = ReLU((stack - mean) scale_l + shift_l),    scale_l = weight_l / sqrt(var + eps),

is made where the convolution reads it: a vector at a time (Winograd's), or in one pass over a few rows, which the 1x1
convolution (a matrix product) takes from the cache. Nothing of it is kept: the backward makes it again. Kept are the
stack and each layer's bottleneck.

In the backward a map receives from each layer l that read it

    scale_l (g_l - mean(g_l) - x_hat mean(g_l x_hat)),    g_l: what the layer's ReLU lets through,

whose second and third part are, over all layers together, one line `constant + (x - mean) slope`. So each layer adds
`scale_l g_l` to the gradient of the stack where that of a_l is made, and the sums are taken there, too. The line is
subtracted once, when the map's turn comes.

Maps are columns of matrices (M, C) with M = N H W rows: channels_last, in which convolutions need no conversions.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.arrange import arranged, copy_
from lorbms_fast.kernels._common.autocast import no_autocast
from lorbms_fast.kernels._common.layout import is_channels_last
from lorbms_fast.kernels.densenet_block import convolution, norms, products, reference
from lorbms_fast.kernels.densenet_block.reference import BatchNorm, Bottleneck, Layer, Statistics
from lorbms_fast.kernels.densenet_block.stack import Parts, Positions, Received


def densenet_block(
    x: Tensor, layers: Sequence[Layer], new_alone: bool = False
) -> tuple[Tensor, list[list[Statistics]]]:
    """Return the stack, and what each layer's norms normalized with; documented in `reference.py`.

    x is not empty, and of the dtype that is computed in; parameters may have another.
    """
    used: list[list[Statistics]] = []
    inputs = [x, *(p for layer in layers for p in _parameters(layer))]
    with no_autocast(x):
        if torch.is_grad_enabled() and any(p is not None and p.requires_grad for p in inputs):
            maps: Tensor = _Block.apply(layers, used, new_alone, *inputs)
        else:
            maps = _result(x, _stack(x, layers, used), new_alone)
    return maps, used


def _parameters(layer: Layer) -> tuple[Tensor | None, ...]:
    """The parameters of a layer, `_COUNT` of them."""
    conv, norm = layer.bottleneck or (None, None)
    return *layer.norm[:2], conv, *(norm[:2] if norm else (None, None)), layer.conv, layer.bias


_COUNT = 7


def _result(x: Tensor, stack: Tensor, new_alone: bool) -> Tensor:
    """What the block gives, in x's layout."""
    maps = Positions.of(x).maps(stack[:, x.shape[1] :] if new_alone else stack)
    return arranged(maps, memory_format(x))


def _stack(x: Tensor, layers: Sequence[Layer], used: list[list[Statistics]], saved: list[Any] | None = None) -> Tensor:
    """Compute the stack as a matrix.

    Args:
        x: (N, C, H, W).
        layers: L of them.
        used: is appended what each layer's norms normalize with.
        saved: is appended what the backward reads of each layer.
    """
    positions, parts = Positions.of(x), Parts(x.shape[1], len(layers[0].conv))
    stack = x.new_empty(positions.rows, parts.before(len(layers)).stop)
    copy_(positions.maps(stack[:, parts.before(0)]), x)
    form = products.form_for(stack)
    mean, var = x.new_zeros(2, stack.shape[1], dtype=_exact(x.dtype))
    # The last layer that normalizes with the batch's statistics: none are taken of maps that only later ones read.
    last = max((number for number, layer in enumerate(layers) if layer.norm.statistics is None), default=-1)
    if last >= 0:
        first = parts.before(0)
        form.statistics(stack[:, first], mean[first], var[first])
    for number, layer in enumerate(layers):
        read, own = parts.before(number), parts.own(number)
        of_stack = layer.norm.statistics or (mean[read], var[read])
        used.append([of_stack])
        maps, norm = stack[:, read], _norm(layer.norm, of_stack)
        bottleneck = of_bottleneck = None
        if layer.bottleneck is not None:
            bottleneck, of_bottleneck = _narrowed(form, maps, norm, layer.bottleneck)
            used[-1].append(of_bottleneck)
            maps, norm = bottleneck, _norm(layer.bottleneck.norm, of_bottleneck)
        new = positions.maps(stack[:, own])
        convolution.convolution(form, positions.maps(maps), norm, layer.conv, layer.bias, new)
        if layer.dropout is not None:
            new *= layer.dropout
        if number < last:
            form.statistics(stack[:, own], mean[own], var[own])
        if saved is not None:
            saved += [bottleneck, *of_stack, *(of_bottleneck or (None, None)), layer.dropout]
    return stack


def _narrowed(form: ModuleType, maps: Tensor, norm: norms.Norm, by: Bottleneck) -> tuple[Tensor, Statistics]:
    """Compute the maps of a bottleneck, and what its norm normalizes with."""
    W = by.conv.flatten(1)
    bottleneck = maps.new_empty(len(maps), len(W))
    mean, var = by.norm.statistics or norm.mean.new_empty(2, len(W))
    products.convolution(form, maps, norm, W, bottleneck, (mean, var) if by.norm.statistics is None else None)
    return bottleneck, (mean, var)


def _factors(layer: Layer) -> Tensor | None:
    """The dropout's, as rows of a matrix: one for each sample, or for each position."""
    return None if layer.dropout is None else norms.matrix(layer.dropout).contiguous()


class _Kept(NamedTuple):
    """What the backward reads of a layer, beside its parameters."""

    of_stack: Statistics
    narrowed: tuple[Tensor, Statistics] | None
    """Maps of its bottleneck, and what their norm normalized with."""


class _Block(torch.autograd.Function):
    """Layers, whether x is left out, x, their parameters -> stack; appends to `used`."""

    @staticmethod
    def forward(
        ctx: Any, layers: Sequence[Layer], used: list[Any], new_alone: bool, x: Tensor, *parameters: Tensor | None
    ) -> Tensor:
        saved: list[Any] = []
        stack = _stack(x, layers, used, saved)
        ctx.save_for_backward(x, stack, *saved, *parameters)
        ctx.norms = [
            [(norm.eps, norm.statistics is None) for norm in (layer.norm, *(layer.bottleneck or ())[1:])]
            for layer in layers
        ]
        ctx.new_alone = new_alone
        maps = _result(x, stack, new_alone)
        # A copy: operations in place that follow must not change what the backward reads.
        return maps.clone() if maps.data_ptr() == stack.data_ptr() else maps

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, stack, *saved = ctx.saved_tensors
        layers, kept = _restored(saved, ctx.norms)
        if double_backward.asked_for(grad):
            return _by_definition(x, layers, ctx.new_alone, grad)
        positions, parts = Positions.of(x), Parts(x.shape[1], len(layers[0].conv))
        form = products.form_for(stack)
        to_stack = torch.empty_like(stack)
        if ctx.new_alone:
            to_stack[:, parts.before(0)] = 0
        copy_(positions.maps(to_stack[:, x.shape[1] :] if ctx.new_alone else to_stack), grad)
        received = Received(to_stack, *x.new_zeros(3, stack.shape[1], dtype=_exact(x.dtype)))
        of_batch = [number for number, layer in enumerate(layers) if layer.norm.statistics is None]
        if of_batch:
            received.mean[parts.before(of_batch[-1])] = kept[of_batch[-1]].of_stack[0]

        gradients: list[Tensor | None] = []
        for number in reversed(range(len(layers))):
            layer, read, own = layers[number], parts.before(number), parts.own(number)
            wanted = ctx.needs_input_grad[4 + _COUNT * number :][:_COUNT]
            grad_y = positions.maps(received.gradient(form, stack, own, _factors(layer)))
            found = _send_back(form, grad_y, stack[:, read], layer, kept[number], received.by(read), wanted)
            pairs = zip(found, _parameters(layer), wanted, strict=True)
            gradients[:0] = [g.to(p.dtype) if needed and p is not None else None for g, p, needed in pairs]
        to_x = None
        if ctx.needs_input_grad[3]:
            to_x = arranged(positions.maps(received.gradient(form, stack, parts.before(0))), memory_format(x))
        return None, None, None, to_x, *gradients


def _send_back(
    form: ModuleType, grad_y: Tensor, maps: Tensor, layer: Layer, kept: _Kept,
    to_maps: tuple[Tensor, Tensor, Tensor], wanted: Sequence[bool],
) -> tuple[Any, ...]:  # fmt: skip
    """Add to what the maps that a layer reads receive; return the gradients of its parameters, of these as wanted.

    Args:
        form: of norms that takes the stack, `cpp` or `norms`.
        grad_y: of the layer's convolution's result, (N, growth, H, W).
        maps: that it reads, (M, C + l * growth).
        layer: whose turn it is.
        kept: of it.
        to_maps: what layers send back to these, as `Received.by` gives it.
        wanted: of each of its parameters, if the gradient is.
    """
    positions, norm, (directly, *line) = Positions.of(grad_y), _norm(layer.norm, kept.of_stack), to_maps
    to_bias, to_weight = norm.mean.new_zeros(2, maps.shape[1])
    if layer.bottleneck is None or kept.narrowed is None:
        of_conv = positions.maps(maps), norm, layer.conv
        of_convs = convolution.backward_weight(form, grad_y, *of_conv, *wanted[5:])
        convolution.backward_norm(form, grad_y, *of_conv, to_bias, to_weight, positions.maps(directly))
        narrow: tuple[Tensor | None, ...] = None, None, None
    else:
        W, (_, _, _, statistics) = layer.bottleneck
        read, norm_of_read = kept.narrowed[0], _norm(layer.bottleneck.norm, kept.narrowed[1])
        of_convs = convolution.backward_weight(
            form, grad_y, positions.maps(read), norm_of_read, layer.conv, *wanted[5:]
        )
        to_read = norms.matrix(convolution.backward_input(grad_y, positions.maps(read), layer.conv)).contiguous()
        to_bias2, to_weight2 = norm.mean.new_empty(2, len(W))
        form.norm_relu_backward_(to_read, read, norm_of_read, to_bias2, to_weight2, statistics is None)
        sums = to_bias, to_weight, directly
        to_W = products.convolution_backward(form, to_read, maps, norm, W.flatten(1), wanted[2], *sums)
        narrow = None if to_W is None else to_W.view(W.shape), to_weight2, to_bias2
    form.add_line(positions.rows, norm, to_bias, to_weight, *line, layer.norm.statistics is None)
    return to_weight, to_bias, *narrow, *of_convs


def _restored(
    saved: Sequence[Any], of_norms: Sequence[Sequence[tuple[float, bool]]]
) -> tuple[list[Layer], list[_Kept]]:
    """The layers and what was kept of them; `of_norms`: eps of each layer's, and whether they take the batch's."""
    layers, kept = [], []
    of_layers, parameters = saved[: 6 * len(of_norms)], saved[6 * len(of_norms) :]
    for number, ((eps, batch), *narrow) in enumerate(of_norms):
        maps, mean, var, mean2, var2, dropout = of_layers[6 * number : 6 * number + 6]
        weight, bias, *between, conv, conv_bias = parameters[_COUNT * number : _COUNT * (number + 1)]
        bottleneck = None
        for eps2, batch2 in narrow:
            norm2 = BatchNorm(between[1], between[2], eps2, None if batch2 else (mean2, var2))
            bottleneck = Bottleneck(between[0], norm2)
        norm = BatchNorm(weight, bias, eps, None if batch else (mean, var))
        layers.append(Layer(norm, bottleneck, conv, conv_bias, dropout))
        kept.append(_Kept((mean, var), (maps, (mean2, var2)) if bottleneck else None))
    return layers, kept


def _by_definition(x: Tensor, layers: Sequence[Layer], new_alone: bool, grad: Tensor) -> Any:
    """Gradients that can be differentiated again."""

    def definition(x: Tensor, *parameters: Any) -> Tensor:
        new = []
        for number, layer in enumerate(layers):
            weight, bias, conv1, weight2, bias2, conv, conv_bias = parameters[_COUNT * number : _COUNT * (number + 1)]
            between = layer.bottleneck
            if between is not None:
                between = Bottleneck(conv1, between.norm._replace(weight=weight2, bias=bias2))
            norm = layer.norm._replace(weight=weight, bias=bias)
            new.append(Layer(norm, between, conv, conv_bias, layer.dropout))
        return reference.densenet_block(x, new, new_alone)

    inputs = [x, *(p for layer in layers for p in _parameters(layer))]
    to_x, *gradients = double_backward.by_definition(definition, inputs, grad)
    return None, None, None, to_x, *gradients


def _norm(norm: BatchNorm, statistics: Statistics) -> norms.Norm:
    """The norm with what it normalizes with, as they are applied."""
    mean, var = statistics
    weight, bias = norm.weight.to(mean.dtype).contiguous(), norm.bias.to(mean.dtype).contiguous()
    return norms.Norm(mean, var, weight, bias, norm.eps)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """The dtype of statistics."""
    return torch.promote_types(dtype, torch.float32)


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout that the result has."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format
