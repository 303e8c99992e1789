"""A dense block as a triangular system, `y_l = b_l + W_l0 * a_0 + sum over j < l of W_lj * a_j`, solved by halves.

Why it is one, and how it is solved, and its transpose for the backward, is told in docs/architecture.md.
"""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from lorbms_fast.kernels._common import norm_relu
from lorbms_fast.kernels._common.winograd import add_relu_conv2d_, relu_conv2d, relu_conv2d_backward
from lorbms_fast.kernels.dense_block import cpp


class System(NamedTuple):
    """The triangular system, whose entries are convolutions, in blocks that are kernels of one convolution each.

    The first block, (L * growth, C, k, k), reads x: a row for each layer. The others, in the order of `_pushes`, read
    the maps of layers first .. middle - 1 for layers middle .. last - 1. There are L in all.
    """

    blocks: tuple[Tensor, ...]

    @classmethod
    def empty(cls, weights: Sequence[Tensor], dtype: torch.dtype) -> "System":
        """Allocate the system of these layers' weights."""
        growth, C, *kernel = weights[0].shape
        steps = [(last - middle, (middle - first) * growth) for first, middle, last in _pushes(len(weights))]
        shapes = [(rows * growth, columns, *kernel) for rows, columns in [(len(weights), C), *steps]]
        device = weights[0].device
        blocks = (torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last) for shape in shapes)
        return cls(tuple(blocks))

    @property
    def layers(self) -> int:
        """L, the number of layers."""
        return len(self.blocks)

    @property
    def growth(self) -> int:
        """Maps of a layer."""
        return self.blocks[0].shape[0] // self.layers

    @property
    def in_channels(self) -> int:
        """C, maps that the block reads."""
        return self.blocks[0].shape[1]

    def of_input(self, x_hat: Tensor, b: Tensor) -> Tensor:
        """`b_l + W_l0 * a_0` for all layers at once: what they receive from x."""
        return relu_conv2d(x_hat, self.blocks[0], b)

    def maps(self, first: int, last: int) -> slice:
        """Channels of the maps of layers first .. last - 1 among all new maps."""
        return slice(first * self.growth, last * self.growth)

    def beside(self, weights: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The parts of the blocks that the layers' weights are made of, and the same parts of the weights, as views."""
        parts = self._parts()
        widths = [[part.shape[1] for part in of_layer] for of_layer in parts]
        of_weights = [weight.split(of_layer, 1) for weight, of_layer in zip(weights, widths, strict=True)]
        return [*chain.from_iterable(parts)], [*chain.from_iterable(of_weights)]

    def weights(self) -> list[Tensor]:
        """Each layer's weight (growth, C + l * growth, k, k)."""
        return [torch.cat(of_layer, 1) for of_layer in self._parts()]

    def _parts(self) -> list[list[Tensor]]:
        """The parts of each layer's weight, in the order of the maps that it reads."""
        parts: list[list[Tensor]] = [[] for _ in self.blocks]
        for (_, middle, last), block in zip([(0, 0, self.layers), *_pushes(self.layers)], self.blocks, strict=True):
            for i, of_layer in enumerate(parts[middle:last]):  # views of their own: an exported graph writes into them
                of_layer.append(block.narrow(0, i * self.growth, self.growth))
        return parts


Step = tuple[int, int, int]


def _steps(first: int, last: int) -> tuple[Step, ...]:
    """The order in which a blocked triangular solve goes through layers first .. last - 1.

    Each step is (first, middle, last): layers first .. middle - 1 push what they made into layers middle .. last - 1;
    or, where there are none in front of the middle, the layer itself is finished.
    """
    if last - first == 1:
        return ((first, first, last),)
    middle = (first + last) // 2
    return *_steps(first, middle), (first, middle, last), *_steps(middle, last)


def _pushes(layers: int) -> list[Step]:
    """The steps in which layers push, in the order of the solve."""
    return [(first, middle, last) for first, middle, last in _steps(0, layers) if first != middle]


def solve(system: System, y: Tensor, y_hat: Tensor, normed: bool, eps: float) -> list[Tensor]:
    """Solve the system in place: y, what each layer has received from x, becomes the new maps.

    Normalized they go to y_hat, which is y itself where only that is wanted, or where there is no norm. Returns 1 /
    deviations of each layer's maps, with a norm.
    """
    if cpp.take(system.blocks[1:], y, y_hat):
        return cpp.solve(y, y_hat, system.blocks[1:], normed, eps)
    rstd = []
    blocks = iter(system.blocks[1:])
    for first, middle, last in _steps(0, system.layers):
        if first == middle:  # a layer's part of y is its own once all layers before have pushed
            if normed:
                maps = system.maps(first, last)
                rstd.append(norm_relu.normalize(y[:, maps], y_hat[:, maps], eps))
        else:
            add_relu_conv2d_(y[:, system.maps(middle, last)], y_hat[:, system.maps(first, middle)], next(blocks))
    return rstd


BlockGradients = tuple[Tensor | None, Tensor | None, Sequence[Tensor | None]]
"""Of x, biases and blocks, as far as they are wanted."""


def solve_transposed(
    system: System, wanted: tuple[bool, bool, bool], g: Tensor, g_hat: Tensor, to_a0: Tensor | None, x_hat: Tensor,
    y_hat: Tensor, rstd: Sequence[Tensor],
) -> BlockGradients:  # fmt: skip
    """Solve the transposed system of the forward's, as far as gradients of x, biases and blocks are wanted.

    g and g_hat are the gradients of y and y_hat as far as they came from outside, and are made complete in place. They
    may be one: then a layer's part holds that of y_hat until the layer's turn comes, and that of y after. to_a0 is the
    gradient of x's activation from outside, if any; rstd is empty without a norm.
    """
    wants_x, wants_b, wants_W = wanted
    to_pushes = _send_back(system, wants_W, g, g_hat, y_hat, rstd[1:])
    to_read, to_W, grad_b = relu_conv2d_backward(g, x_hat, system.blocks[0], (wants_x, wants_W, wants_b))
    grad_x = None
    if wants_x:
        if to_a0 is None:
            grad_x = norm_relu.relu_backward(to_read, x_hat, out=to_read)
            if rstd:
                norm_relu.normalize_backward(grad_x, x_hat, rstd[0], out=grad_x)
        elif rstd:
            grad_x = norm_relu.relu_normalize_backward(to_read, to_a0, x_hat, rstd[0], out=to_read)
        else:
            grad_x = norm_relu.relu_backward(to_read.add_(to_a0), x_hat, out=to_read)
    return grad_x, grad_b, [to_W, *to_pushes]


def _send_back(
    system: System, wants_W: bool, g: Tensor, g_hat: Tensor, y_hat: Tensor, rstd: Sequence[Tensor]
) -> Sequence[Tensor | None]:
    """Complete g and g_hat from the last layer on; returns the gradients of the blocks behind the first, if wanted."""
    blocks = [*system.blocks[1:]]
    if cpp.take(blocks, g, g_hat, y_hat):
        return cpp.solve_transposed(g, g_hat, y_hat, blocks, rstd, wants_W) or [None] * len(blocks)
    to_blocks: list[Tensor | None] = []  # from the last on
    for first, middle, last in reversed(_steps(0, system.layers)):
        if first == middle:  # all layers behind have sent back to this one
            if rstd:
                maps = system.maps(first, last)
                to_y_hat, own_y_hat = g_hat[:, maps], y_hat[:, maps]
                to_y = norm_relu.normalize_backward(to_y_hat, own_y_hat, rstd[first], out=to_y_hat)
                if g_hat is not g:
                    norm_relu.add_(g[:, maps], to_y)
        else:
            to_pushed, read = g[:, system.maps(middle, last)], system.maps(first, middle)
            to_a, to_W, _ = relu_conv2d_backward(to_pushed, y_hat[:, read], blocks.pop(), (True, wants_W, False))
            norm_relu.add_relu_backward_(g_hat[:, read], to_a, y_hat[:, read])
            to_blocks.append(to_W)
    return to_blocks[::-1]
