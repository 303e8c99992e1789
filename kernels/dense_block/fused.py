"""The dense block as a triangular system, solved by halves: its result, and its gradients, as nodes of the graph.

Only normalized maps are kept for the backward; ReLU is applied again as they are read, which costs no more than the
copy that a convolution of some of the maps needs anyway. Everything is channels_last: convolutions then need no
conversions, and normalizing runs along memory.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward, norm_relu
from lorbms_fast.kernels._common.autocast import no_autocast
from lorbms_fast.kernels._common.layout import new_maps
from lorbms_fast.kernels.dense_block import cpp, reference
from lorbms_fast.kernels.dense_block.system import BlockGradients, System, solve, solve_transposed

CHANNELS_LAST = torch.channels_last


def pack(weights: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The layers' weights as the blocks of the system (see `System`)."""
    blocks: tuple[Tensor, ...] = _Pack.apply(dtype, *weights)
    return blocks


def maps(x: Tensor, W: Sequence[Tensor], b: Tensor, activation: str, eps: float) -> Tensor:
    """The new maps y_0 .. y_{L-1}, (N, L * growth, H, W)."""
    return apply(_Maps, x.contiguous(memory_format=CHANNELS_LAST), W, b, activation, eps)


def activated(x: Tensor, W: Sequence[Tensor], b: Tensor, activation: str, eps: float) -> Tensor:
    """The activated stack [a_0, .., a_L], (N, C + L * growth, H, W): what the next layer would activate again."""
    return apply(_Activated, x, W, b, activation, eps)


def apply(
    function: type[torch.autograd.Function], x: Tensor, W: Sequence[Tensor], b: Tensor, activation: str, eps: float,
    *others: Tensor,
) -> Tensor:  # fmt: skip
    """Run a function outside autocast, with x in the dtype of the weights."""
    dtype = W[0].dtype
    with no_autocast(x):
        normed = activation == "instance_norm_relu"
        result: Tensor = function.apply(x.to(dtype), b.to(dtype), *others, normed, eps, *W)
    return result


class _Pack(torch.autograd.Function):
    """L weights -> L blocks, in another dtype if asked; all copied by one operation."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        system = System.empty(weights, dtype)
        if cpp.packs(weights, system.blocks):
            cpp.pack(weights, system.blocks)
        else:
            parts, of_weights = system.beside(weights)
            torch._foreach_copy_(parts, of_weights)
        ctx.like = [(weight.dtype, weight.shape, _layout(weight)) for weight in weights]
        return system.blocks

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        system = System(grads)
        if double_backward.asked_for(*grads):
            return None, *(grad.to(dtype) for grad, (dtype, *_) in zip(system.weights(), ctx.like, strict=True))
        # Dense and laid out as the parameters, so that autograd keeps them and copies nothing.
        of_layers = [
            torch.empty(shape, dtype=dtype, device=grads[0].device, memory_format=layout)
            for dtype, shape, layout in ctx.like
        ]
        if cpp.packs(of_layers, grads):
            cpp.unpack(grads, of_layers)
        else:
            parts, of_weights = system.beside(of_layers)
            torch._foreach_copy_(of_weights, parts)
        return None, *of_layers


def _layout(weight: Tensor) -> torch.memory_format:
    return CHANNELS_LAST if weight.is_contiguous(memory_format=CHANNELS_LAST) else torch.contiguous_format


class _Maps(torch.autograd.Function):
    """x, biases, blocks -> new maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor, normed: bool, eps: float, *W: Tensor) -> Tensor:
        system = System(W)
        x_hat, rstd = _normalized_input(x, normed, eps)
        y = system.of_input(x_hat, b)
        y_hat = torch.empty_like(y) if normed else y
        rstd += solve(system, y, y_hat, normed, eps)
        ctx.save_for_backward(x, b, y_hat, *W, *rstd)
        ctx.options = normed, eps
        ctx.layers = len(W)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, b, y_hat, *others = ctx.saved_tensors
        W, rstd = others[: ctx.layers], others[ctx.layers :]
        normed, eps = ctx.options
        if double_backward.asked_for(grad_y):
            return _by_definition(ctx.options, x, b, W, grad_y, None)
        x_hat, _ = _normalized_input(x, normed, eps)  # again: one tensor less to keep
        g = grad_y.clone(memory_format=CHANNELS_LAST)
        # Without a norm y_hat is y, and what later layers send back to it adds to what came from outside.
        g_hat = torch.zeros_like(g) if normed else g
        wanted = wanted_of(ctx.needs_input_grad, 4)
        to_x, to_b, to_W = solve_transposed(System(W), wanted, g, g_hat, None, x_hat, y_hat, rstd)
        return to_x, to_b, None, None, *to_W


def wanted_of(needs: Sequence[bool], W: int) -> tuple[bool, bool, bool]:
    """Tell which gradients of x, biases and blocks are wanted, for (x, biases, ..) whose blocks begin at `W`."""
    return needs[0], needs[1], any(needs[W:])


def _normalized_input(x: Tensor, normed: bool, eps: float) -> tuple[Tensor, list[Tensor]]:
    """x normalized and 1 / deviations, if it is to be; else x."""
    if not normed:
        return x, []
    x_hat = torch.empty_like(x)
    return x_hat, [norm_relu.normalize(x, x_hat, eps)]


def _defined(normed: bool, eps: float, x: Tensor, b: Tensor, *W: Tensor) -> tuple[Tensor, Tensor]:
    """New maps and activated stack, by the definition."""
    system, activation = System(W), reference.activation_of(normed, eps)
    stack = reference.dense_block(x, system.weights(), b.split(system.growth), activation)
    return stack[:, x.shape[1] :], activation(stack)


def _by_definition(
    options: tuple[bool, float], x: Tensor, b: Tensor, W: Sequence[Tensor], *grads: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of all arguments from those of new maps and activated stack, which can be differentiated again."""
    to_x, to_b, *to_W = double_backward.by_definition(partial(_defined, *options), (x, b, *W), grads)
    return to_x, to_b, None, None, *to_W


class _Activated(torch.autograd.Function):
    """x, biases, blocks -> activated stack."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor, normed: bool, eps: float, *W: Tensor) -> Tensor:
        stack, rstd = normalized_stack(System(W), x, b, normed, eps)
        ctx.save_for_backward(x, b, stack, *W, *rstd)
        ctx.options = normed, eps
        ctx.layers = len(W)
        return torch.relu(stack)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, b, stack, *others = ctx.saved_tensors
        W, rstd = others[: ctx.layers], others[ctx.layers :]
        if double_backward.asked_for(grad):
            return _by_definition(ctx.options, x, b, W, None, grad)
        to_stack = norm_relu.relu_backward(grad, stack)
        to_x, to_b, to_W = from_stack(System(W), wanted_of(ctx.needs_input_grad, 4), to_stack, stack, rstd)
        return to_x, to_b, None, None, *to_W


def normalized_stack(system: System, x: Tensor, b: Tensor, normed: bool, eps: float) -> tuple[Tensor, list[Tensor]]:
    """Solve the system in one stack, (N, C + L * growth, H, W): x and y, normalized; and 1 / deviations if they are."""
    C = x.shape[1]
    stack = new_maps(x, C + system.layers * system.growth, *x.shape[2:])
    x_hat, y_hat = stack[:, :C], stack[:, C:]
    rstd = []
    if normed:
        rstd.append(norm_relu.normalize(x, x_hat, eps))
    else:
        x_hat.copy_(x)
    y = system.of_input(x_hat, b)
    if not normed:
        y = y_hat.copy_(y)
    return stack, rstd + solve(system, y, y_hat, normed, eps)


def from_stack(
    system: System, wanted: tuple[bool, bool, bool], grad: Tensor, stack: Tensor, rstd: Sequence[Tensor]
) -> BlockGradients:
    """Gradients from that of the normalized stack, behind whose ReLU there is another reader; it is overwritten."""
    C = system.in_channels
    g = grad[:, C:]
    return solve_transposed(system, wanted, g, g, grad[:, :C], stack[:, :C], stack[:, C:], rstd)
