"""The dense block as a triangular system.

The activation `a(x) = ReLU(norm(x))` has no parameters and acts on each map alone, so a map's activation is the same
for every layer that reads it. With `a_0 = a(x)` and `a_j = a(y_j)`, layer l computes

    y_l = b_l + W_l0 * a_0 + sum over j < l of W_lj * a_j.

All `W_l0 * a_0` are one convolution with L * growth output maps. What is left is strictly lower triangular and is
solved by halves: solve the first half of the layers, push its maps into all layers of the second half with one
convolution, solve the second half. The backward is the transposed system: second half, one transposed push, first
half, and at last one convolution backward for x.

Only normalized maps are kept for the backward; ReLU is applied again as they are read, which costs no more than the
copy that a convolution of some of the maps needs anyway. Everything is channels_last: convolutions then need no
conversions, and normalising runs along memory.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common import double_backward, norm_relu
from lorbms_fast.kernels._common.autocast import no_autocast
from lorbms_fast.kernels.dense_block import reference

CHANNELS_LAST = torch.channels_last


def pack(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The layers' weights as the system's matrix (see `System`)."""
    matrix: Tensor = _Pack.apply(dtype, *weights)
    return matrix


def maps(x: Tensor, W: Tensor, b: Tensor, layers: int, activation: str, eps: float) -> Tensor:
    """The new maps y_0 .. y_{L-1}, (N, L * growth, H, W)."""
    return apply(_Maps, x.contiguous(memory_format=CHANNELS_LAST), W, b, layers, activation, eps)


def activated(x: Tensor, W: Tensor, b: Tensor, layers: int, activation: str, eps: float) -> Tensor:
    """The activated stack [a_0, .., a_L], (N, C + L * growth, H, W): what the next layer would activate again."""
    return apply(_Activated, x, W, b, layers, activation, eps)


def apply(
    function: type[torch.autograd.Function], x: Tensor, W: Tensor, b: Tensor, layers: int, activation: str, eps: float,
    *others: Tensor,
) -> Tensor:  # fmt: skip
    """Run a function outside autocast, with x in the dtype of the weights."""
    with no_autocast(x):
        normed = activation == "instance_norm_relu"
        result: Tensor = function.apply(x.to(W.dtype), W, b.to(W.dtype), *others, len(b) // layers, normed, eps)
    return result


class _Pack(torch.autograd.Function):
    """L weights -> the matrix, in another dtype if asked; all copied by one operation."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> Tensor:
        growth, layers = weights[0].shape[0], len(weights)
        shape = (layers * growth, *weights[-1].shape[1:])
        W = torch.empty(shape, dtype=dtype, device=weights[0].device, memory_format=CHANNELS_LAST)
        torch._foreach_copy_(System(W, growth).weights(), weights)
        ctx.growth = growth
        ctx.like = [torch.empty_like(weight, device="meta") for weight in weights]
        return W

    @staticmethod
    def backward(ctx: Any, grad_W: Tensor) -> Any:
        if double_backward.asked_for():
            views = System(grad_W, ctx.growth).weights()
            return None, *(view.to(weight.dtype) for view, weight in zip(views, ctx.like, strict=True))
        # Dense and laid out as the parameters, so that autograd keeps them and copies nothing.
        grads = [torch.empty_like(weight, device=grad_W.device) for weight in ctx.like]
        torch._foreach_copy_(grads, System(grad_W, ctx.growth).weights())
        return None, *grads


class _Maps(torch.autograd.Function):
    """x, matrix, biases -> new maps."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor, growth: int, normed: bool, eps: float) -> Tensor:
        system = System(W, growth)
        x_hat, rstd = _normalized_input(x, normed, eps)
        y = system.of_input(x_hat, b)
        y_hat = torch.empty_like(y) if normed else y
        rstd += _solve(system, y, y_hat, normed, eps)
        ctx.save_for_backward(x, W, b, y_hat, *rstd)
        ctx.options = growth, normed, eps
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        x, W, b, y_hat, *rstd = ctx.saved_tensors
        growth, normed, eps = ctx.options
        if double_backward.asked_for():
            found = double_backward.by_definition(partial(_maps_defined, *ctx.options), (x, W, b), grad_y)
            return *found, None, None, None
        x_hat, _ = _normalized_input(x, normed, eps)  # again: one tensor less to keep
        g = grad_y.clone(memory_format=CHANNELS_LAST)
        # Without a norm y_hat is y, and what later layers send back to it adds to what came from outside.
        g_hat = torch.zeros_like(g) if normed else g
        grads = _solve_transposed(System(W, growth), ctx.needs_input_grad, g, g_hat, None, x_hat, y_hat, rstd)
        return *grads, None, None, None


def _normalized_input(x: Tensor, normed: bool, eps: float) -> tuple[Tensor, list[Tensor]]:
    """x normalized and 1 / deviations, if it is to be; else x."""
    if not normed:
        return x, []
    x_hat = torch.empty_like(x)
    return x_hat, [norm_relu.normalize(x, x_hat, eps)]


def _maps_defined(growth: int, normed: bool, eps: float, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """The new maps, by the definition."""
    stack = reference.dense_block(x, System(W, growth).weights(), b.split(growth), reference.activation_of(normed, eps))
    return stack[:, x.shape[1] :]


def _activated_defined(growth: int, normed: bool, eps: float, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
    """The activated stack, by the definition."""
    activation = reference.activation_of(normed, eps)
    return activation(reference.dense_block(x, System(W, growth).weights(), b.split(growth), activation))


class _Activated(torch.autograd.Function):
    """x, matrix, biases -> activated stack."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor, growth: int, normed: bool, eps: float) -> Tensor:
        stack, rstd = normalized_stack(System(W, growth), x, b, normed, eps)
        ctx.save_for_backward(x, W, b, stack, *rstd)
        ctx.options = growth, normed, eps
        return torch.relu(stack)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, W, b, stack, *rstd = ctx.saved_tensors
        growth, *_ = ctx.options
        if double_backward.asked_for():
            found = double_backward.by_definition(partial(_activated_defined, *ctx.options), (x, W, b), grad)
            return *found, None, None, None
        grads = from_activated(System(W, growth), ctx.needs_input_grad, grad, stack, rstd)
        return *grads, None, None, None


def normalized_stack(system: "System", x: Tensor, b: Tensor, normed: bool, eps: float) -> tuple[Tensor, list[Tensor]]:
    """Solve the system in one stack, (N, C + L * growth, H, W): x and y, normalized; and 1 / deviations if they are."""
    n, C, height, width = x.shape
    shape = (n, C + system.layers * system.growth, height, width)
    stack = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=CHANNELS_LAST)
    x_hat, y_hat = stack[:, :C], stack[:, C:]
    rstd = []
    if normed:
        rstd.append(norm_relu.normalize(x, x_hat, eps))
    else:
        x_hat.copy_(x)
    y_hat.copy_(system.of_input(x_hat, b))
    return stack, rstd + _solve(system, y_hat, y_hat, normed, eps)


def from_activated(
    system: "System", needs: Sequence[bool], grad: Tensor, stack: Tensor, rstd: Sequence[Tensor]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of x, matrix and biases from that of the activated stack."""
    C = system.in_channels
    x_hat, y_hat = stack[:, :C], stack[:, C:]
    g = norm_relu.relu_backward(grad[:, C:], y_hat)
    return _solve_transposed(system, needs, g, g, grad[:, :C], x_hat, y_hat, rstd)


class System(NamedTuple):
    """The triangular system's matrix, whose entries are convolutions.

    `W` is (L * growth, C + (L - 1) * growth, k, k): a row of blocks for each layer, first the block that reads x, then
    those that read the layers before; what lies above the diagonal is never read.
    """

    W: Tensor
    growth: int

    @property
    def layers(self) -> int:
        """L."""
        return self.W.shape[0] // self.growth

    @property
    def in_channels(self) -> int:
        """C."""
        return self.W.shape[1] - (self.layers - 1) * self.growth

    @property
    def padding(self) -> int:
        """Rows and columns around the maps that keep their height and width."""
        return self.W.shape[-1] // 2

    def of_input(self, x_hat: Tensor, b: Tensor) -> Tensor:
        """`b_l + W_l0 * a_0` for all layers at once: what they receive from x."""
        return F.conv2d(torch.relu(x_hat), self.W[:, : self.in_channels], b, padding=self.padding)

    def maps(self, first: int, last: int) -> slice:
        """Channels of the maps of layers first .. last - 1 among all new maps."""
        return slice(first * self.growth, last * self.growth)

    def reads(self, first: int, last: int) -> slice:
        """Columns of the blocks that read them, in a row of the matrix."""
        return slice(self.in_channels + first * self.growth, self.in_channels + last * self.growth)

    def weights(self) -> list[Tensor]:
        """Each layer's weight (growth, C + l * growth, k, k), as a view of the matrix."""
        rows = self.W.split(self.growth)
        return [row[:, : self.in_channels + layer * self.growth] for layer, row in enumerate(rows)]


def _solve(system: System, y: Tensor, y_hat: Tensor, normed: bool, eps: float) -> list[Tensor]:
    """Solve the system in place.

    Args:
        system: the matrix.
        y: what each layer has received from x; becomes the new maps.
        y_hat: where they go normalized; y itself where only that is wanted, or where there is no norm.
        normed: whether there is one.
        eps: of the norm.

    Returns:
        1 / deviations of each layer's maps, with a norm.
    """
    rstd = []
    for first, middle, last in _steps(0, system.layers):
        if first == middle:  # a layer's part of y is its own once all layers before have pushed
            if normed:
                maps = system.maps(first, last)
                rstd.append(norm_relu.normalize(y[:, maps], y_hat[:, maps], eps))
        else:
            a = torch.relu(y_hat[:, system.maps(first, middle)])
            rows = system.maps(middle, last)
            pushed = F.conv2d(a, system.W[rows, system.reads(first, middle)], padding=system.padding)
            norm_relu.add_(y[:, rows], pushed)
    return rstd


def _steps(first: int, last: int) -> Iterator[tuple[int, int, int]]:
    """The order in which a blocked triangular solve goes through layers first .. last - 1.

    Each step is (first, middle, last): layers first .. middle - 1 push what they made into layers middle .. last - 1;
    or, where there are none in front of the middle, the layer itself is finished.
    """
    if last - first == 1:
        yield first, first, last
        return
    middle = (first + last) // 2
    yield from _steps(first, middle)
    yield first, middle, last
    yield from _steps(middle, last)


def _solve_transposed(
    system: System, needs: Sequence[bool], g: Tensor, g_hat: Tensor, to_a0: Tensor | None, x_hat: Tensor, y_hat: Tensor,
    rstd: Sequence[Tensor],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Solve the transposed system.

    Args:
        system: the forward's.
        needs: for which arguments of the forward a gradient is wanted.
        g: gradient of y as far as it came from outside; made complete in place.
        g_hat: the same of y_hat. It may be g itself: then a layer's part holds the one until the layer's turn comes,
            and the other after.
        to_a0: gradient of x's activation from outside, if any.
        x_hat: x normalized.
        y_hat: y normalized.
        rstd: 1 / deviations of x and of each layer's maps; empty without a norm.

    Returns:
        Gradients of x, matrix and biases, as far as they are wanted.
    """
    C = system.in_channels
    needs_x, needs_W, needs_b, *_ = needs
    blocks, gradients = [], []  # of the matrix

    for first, middle, last in reversed([*_steps(0, system.layers)]):
        if first == middle:  # all layers behind have sent back to this one
            if rstd:
                maps = system.maps(first, last)
                to_y_hat, own_y_hat = g_hat[:, maps], y_hat[:, maps]
                to_y = norm_relu.normalize_backward(to_y_hat, own_y_hat, rstd[1 + first], out=to_y_hat)
                if g_hat is not g:
                    norm_relu.add_(g[:, maps], to_y)
        else:
            read, rows, columns = system.maps(first, middle), system.maps(middle, last), system.reads(first, middle)
            a = torch.relu(y_hat[:, read])
            to_a, to_W, _ = _conv2d_backward(g[:, rows], a, system.W[rows, columns], (True, needs_W, False))
            norm_relu.add_relu_backward_(g_hat[:, read], to_a, a)
            blocks.append((rows, columns))
            gradients.append(to_W)
    a_0 = torch.relu(x_hat)
    to_read, to_W, grad_b = _conv2d_backward(g, a_0, system.W[:, :C], (needs_x, needs_W, needs_b))
    grad_x = None
    if needs_x:
        if to_a0 is None:
            grad_x = norm_relu.relu_backward(to_read, x_hat, out=to_read)
            if rstd:
                norm_relu.normalize_backward(grad_x, x_hat, rstd[0], out=grad_x)
        elif rstd:
            grad_x = norm_relu.relu_normalize_backward(to_read, to_a0, x_hat, rstd[0], out=to_read)
        else:
            grad_x = norm_relu.relu_backward(to_read.add_(to_a0), x_hat, out=to_read)
    grad_W = None
    if needs_W:
        grad_W = torch.zeros_like(system.W)
        torch._foreach_copy_([grad_W[:, :C], *(grad_W[block] for block in blocks)], [to_W, *gradients])
    return grad_x, grad_W, grad_b if needs_b else None


def _conv2d_backward(g: Tensor, x: Tensor, W: Tensor, mask: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `b + W * x` for the masked ones of x, W and b, given that of the result."""
    ones, padding = [1, 1], [W.shape[-1] // 2] * 2
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        g, x, W, [W.shape[0]], ones, padding, ones, False, [0, 0], 1, list(mask)
    )
    return result
