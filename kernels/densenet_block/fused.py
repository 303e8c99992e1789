"""The block on one shared stack of maps, normalized again where they are read.

A map's mean and variance over the batch are the same for every layer that reads it; only scale and shift are the
layer's own. So they are computed once, when the map is written, and what a layer reads,

    a_l = ReLU((stack - mean) scale_l + shift_l),    scale_l = weight_l / sqrt(var + eps),

is one pass over a few rows of the stack at a time, which the 1x1 convolution (a matrix product) takes from the cache.
Nothing of it is kept: the backward makes it again. Kept are the stack and each layer's bottleneck.

In the backward a map receives from each layer l that read it

    scale_l (g_l - mean(g_l) - x_hat mean(g_l x_hat)),    g_l: what the layer's ReLU lets through,

whose second and third part are, over all layers together, one line `constant + (x - mean) slope`. So each layer adds
`scale_l g_l` to the gradient of the stack in the pass that takes the sums, and the line is subtracted once, when the
map's turn comes.

Maps are columns of matrices (M, C) with M = N H W rows: channels_last, in which convolutions need no conversions.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.arrange import arranged, copy_
from lorbms_fast.kernels._common.autocast import no_autocast
from lorbms_fast.kernels._common.layout import is_channels_last
from lorbms_fast.kernels._common.winograd import relu_conv2d, relu_conv2d_backward
from lorbms_fast.kernels.densenet_block import passes, products, reference
from lorbms_fast.kernels.densenet_block.reference import Layer, Norm, Statistics


def densenet_block(x: Tensor, layers: Sequence[Layer]) -> tuple[Tensor, list[tuple[Statistics, Statistics]]]:
    """Return the stack, and what each layer's two norms normalized with; documented in `reference.py`.

    Args:
        x: (N, C, H, W), not empty, of the dtype that is computed in.
        layers: L of them, in order; their parameters may have another dtype.
    """
    used: list[tuple[Statistics, Statistics]] = []
    inputs = [x, *(p for layer in layers for p in _parameters(layer))]
    with no_autocast(x):
        if torch.is_grad_enabled() and any(p.requires_grad for p in inputs):
            maps: Tensor = _Block.apply(layers, used, *inputs)
        else:
            maps = _Positions.of(x).arranged(_stack(x, layers, used), memory_format(x))
    return maps, used


def _parameters(layer: Layer) -> tuple[Tensor, ...]:
    return *layer.norm1[:2], layer.conv1, *layer.norm2[:2], layer.conv2


def _stack(
    x: Tensor, layers: Sequence[Layer], used: list[tuple[Statistics, Statistics]], saved: list[Any] | None = None
) -> Tensor:
    """Compute the stack as a matrix.

    Args:
        x: (N, C, H, W).
        layers: L of them.
        used: is appended what each layer's norms normalize with.
        saved: is appended what the backward reads of each layer.
    """
    positions, parts = _Positions.of(x), _Parts(x.shape[1], len(layers[0].conv2))
    stack = x.new_empty(positions.rows, parts.before(len(layers)).stop)
    copy_(positions.maps(stack[:, parts.before(0)]), x)
    does = products.passes_for(stack)
    mean, var = x.new_zeros(2, stack.shape[1], dtype=_exact(x.dtype))
    of_batch = any(layer.norm1.statistics is None for layer in layers)
    for number, layer in enumerate(layers):
        read, own = parts.before(number), parts.own(number)
        new = parts.own(number - 1) if number else read
        if of_batch:
            does.statistics(stack[:, new], mean[new], var[new])
        of_stack = layer.norm1.statistics or (mean[read], var[read])
        norm1, W1 = _norm(layer.norm1, of_stack), layer.conv1.flatten(1)
        bottleneck = stack.new_empty(positions.rows, len(W1))
        mean2, var2 = layer.norm2.statistics or mean.new_empty(2, len(W1))
        of_bottleneck = mean2, var2
        products.convolution(
            does, stack[:, read], norm1, W1, bottleneck, of_bottleneck if layer.norm2.statistics is None else None
        )
        a2 = torch.empty_like(bottleneck)
        does.norm_relu(bottleneck, _norm(layer.norm2, of_bottleneck), a2)
        y = relu_conv2d(positions.maps(a2), _beside(layer.conv2, x), activated=True)
        positions.maps(stack[:, own]).copy_(y if layer.dropout is None else y.mul_(layer.dropout))
        used.append((of_stack, of_bottleneck))
        if saved is not None:
            saved += [bottleneck, *of_stack, *of_bottleneck, layer.dropout]
    return stack


def _beside(weight: Tensor, maps: Tensor) -> Tensor:
    return weight.to(maps.dtype, memory_format=torch.channels_last)


class _Kept(NamedTuple):
    """What the backward reads of a layer, beside its parameters."""

    bottleneck: Tensor
    of_stack: Statistics
    of_bottleneck: Statistics


class _Block(torch.autograd.Function):
    """Layers, x, their parameters -> stack; appends to `used`."""

    @staticmethod
    def forward(ctx: Any, layers: Sequence[Layer], used: list[Any], x: Tensor, *parameters: Tensor) -> Tensor:
        saved: list[Any] = []
        stack = _stack(x, layers, used, saved)
        ctx.save_for_backward(x, stack, *saved, *parameters)
        ctx.norms = [[(norm.eps, norm.statistics is None) for norm in (layer.norm1, layer.norm2)] for layer in layers]
        # A copy: operations in place that follow must not change what the backward reads.
        layout = memory_format(x)
        maps = _Positions.of(x).arranged(stack, layout)
        return maps.clone() if layout == torch.channels_last else maps

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, stack, *saved = ctx.saved_tensors
        layers, kept = _restored(saved, ctx.norms)
        if double_backward.asked_for(grad):
            return _by_definition(x, layers, grad)
        positions, parts = _Positions.of(x), _Parts(x.shape[1], len(layers[0].conv2))
        does = products.passes_for(stack)
        to_stack = torch.empty_like(stack)
        copy_(positions.maps(to_stack), grad)
        mean, constant, slope = x.new_zeros(3, stack.shape[1], dtype=_exact(x.dtype))
        of_batch = [number for number, layer in enumerate(layers) if layer.norm1.statistics is None]
        if of_batch:
            mean[parts.before(of_batch[-1])] = kept[of_batch[-1]].of_stack[0]

        def completed(maps: slice) -> Tensor:
            """Gradient of maps that all layers have sent back to."""
            result = stack.new_empty(positions.rows, maps.stop - maps.start)
            does.less_line(to_stack[:, maps], stack[:, maps], mean[maps], constant[maps], slope[maps], result)
            return result

        gradients: list[Tensor | None] = []
        for number in reversed(range(len(layers))):
            layer, (bottleneck, of_stack, of_bottleneck) = layers[number], kept[number]
            read, own = parts.before(number), parts.own(number)
            wanted = ctx.needs_input_grad[3 + 6 * number :]

            grad_y = positions.maps(completed(own))
            if layer.dropout is not None:
                grad_y = grad_y.mul_(layer.dropout)
            norm2, a2 = _norm(layer.norm2, of_bottleneck), torch.empty_like(bottleneck)
            does.norm_relu(bottleneck, norm2, a2)
            to_a2, grad_W2, _ = relu_conv2d_backward(
                grad_y, positions.maps(a2), _beside(layer.conv2, x), (True, wanted[5], False), activated=True
            )
            del a2
            to_a2 = positions.matrix(to_a2)
            to_bias2, to_weight2 = mean.new_empty(2, bottleneck.shape[1])
            does.norm_relu_backward_(to_a2, bottleneck, norm2, to_bias2, to_weight2, layer.norm2.statistics is None)

            norm1, W1 = _norm(layer.norm1, of_stack), layer.conv1.flatten(1)
            to_bias1, to_weight1 = mean.new_zeros(2, read.stop)
            grad_W1 = products.convolution_backward(
                does, to_a2, stack[:, read], norm1, W1, wanted[2], to_bias1, to_weight1, to_stack[:, read]
            )
            does.add_line(
                positions.rows, norm1, to_bias1, to_weight1, constant[read], slope[read], layer.norm1.statistics is None
            )

            grad_W1 = None if grad_W1 is None else grad_W1.view(layer.conv1.shape)
            found = (to_weight1, to_bias1, grad_W1, to_weight2, to_bias2, grad_W2)
            pairs = zip(found, _parameters(layer), wanted, strict=False)
            gradients[:0] = [g.to(p.dtype) if needed else None for g, p, needed in pairs]
        to_x = None
        if ctx.needs_input_grad[2]:
            to_x = positions.arranged(completed(parts.before(0)), memory_format(x))
        return None, None, to_x, *gradients


def _restored(saved: Sequence[Any], norms: Sequence[Sequence[tuple[float, bool]]]) -> tuple[list[Layer], list[_Kept]]:
    """The layers and what was kept of them; `norms`: eps of each layer's two, and whether they take the batch's."""
    layers, kept = [], []
    of_layers, parameters = saved[: 6 * len(norms)], saved[6 * len(norms) :]
    for number, ((eps1, batch1), (eps2, batch2)) in enumerate(norms):
        bottleneck, mean1, var1, mean2, var2, dropout = of_layers[6 * number : 6 * number + 6]
        weight1, bias1, W1, weight2, bias2, W2 = parameters[6 * number : 6 * number + 6]
        norm1 = Norm(weight1, bias1, eps1, None if batch1 else (mean1, var1))
        norm2 = Norm(weight2, bias2, eps2, None if batch2 else (mean2, var2))
        layers.append(Layer(norm1, W1, norm2, W2, dropout))
        kept.append(_Kept(bottleneck, (mean1, var1), (mean2, var2)))
    return layers, kept


def _by_definition(x: Tensor, layers: Sequence[Layer], grad: Tensor) -> Any:
    """Gradients that can be differentiated again."""

    def definition(x: Tensor, *parameters: Tensor) -> Tensor:
        new = []
        for number, layer in enumerate(layers):
            weight1, bias1, W1, weight2, bias2, W2 = parameters[6 * number : 6 * number + 6]
            norm1, norm2 = (
                layer.norm1._replace(weight=weight1, bias=bias1),
                layer.norm2._replace(weight=weight2, bias=bias2),
            )
            new.append(layer._replace(norm1=norm1, conv1=W1, norm2=norm2, conv2=W2))
        return reference.densenet_block(x, new)

    inputs = [x, *(p for layer in layers for p in _parameters(layer))]
    to_x, *gradients = double_backward.by_definition(definition, inputs, grad)
    return None, None, to_x, *gradients


class _Positions(NamedTuple):
    """Rows of a matrix: the positions of N samples of H by W."""

    N: int
    H: int
    W: int

    @classmethod
    def of(cls, x: Tensor) -> "_Positions":
        return cls(len(x), *x.shape[2:])

    @property
    def rows(self) -> int:
        return self.N * self.H * self.W

    def maps(self, matrix: Tensor) -> Tensor:
        """(M, C) as maps (N, C, H, W) in the same memory."""
        return matrix.view(*self, -1).permute(0, 3, 1, 2)

    def arranged(self, matrix: Tensor, layout: torch.memory_format) -> Tensor:
        """The maps in a layout: in the same memory if it is channels_last, else copied."""
        return arranged(self.maps(matrix), layout)

    def matrix(self, maps: Tensor) -> Tensor:
        """The other way; what lies in another way is copied."""
        return maps.permute(0, 2, 3, 1).reshape(self.rows, -1).contiguous()


class _Parts(NamedTuple):
    """Columns of the stack."""

    C: int
    growth: int

    def before(self, layer: int) -> slice:
        """Maps that the layer reads."""
        return slice(0, self.C + layer * self.growth)

    def own(self, layer: int) -> slice:
        """Maps that it makes."""
        return slice(self.C + layer * self.growth, self.C + (layer + 1) * self.growth)


def _norm(norm: Norm, statistics: Statistics) -> passes.Norm:
    """The norm with what it normalizes with, as the passes take it."""
    mean, var = statistics
    weight, bias = norm.weight.to(mean.dtype).contiguous(), norm.bias.to(mean.dtype).contiguous()
    return passes.Norm(mean, var, weight, bias, norm.eps)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """The dtype of statistics."""
    return torch.promote_types(dtype, torch.float32)


def memory_format(x: Tensor) -> torch.memory_format:
    """The layout that the result has."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format
