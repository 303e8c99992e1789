"""The dense block as a triangular system.

The activation has no parameters and acts on each map alone, so a map's activation is the same for every layer that
reads it. With `a_0 = activation(x)` and `a_j = activation(y_j)`, layer l computes

    y_l = b_l + W_l0 * a_0 + sum over j < l of W_lj * a_j.

All `W_l0 * a_0` are one convolution with L * growth output maps. What is left is strictly lower triangular and is
solved by halves: solve the first half of the layers, push its maps into all layers of the second half with one
convolution, solve the second half. The backward is the transposed system: second half, one transposed push, first
half, and at last one convolution backward for x.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels.dense_block.activations import ACTIVATIONS, Activation, Saved


def dense_block_maps(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str, eps: float
) -> Tensor:
    """The new maps y_0 .. y_{L-1}, (N, L * growth, H, W)."""
    return _apply(_Maps, x, weights, biases, activation, eps)


def dense_block_activated(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], activation: str, eps: float
) -> Tensor:
    """The activated stack [a_0, .., a_L], (N, C + L * growth, H, W): what the next layer would activate again."""
    return _apply(_Activated, x, weights, biases, activation, eps)


def _apply(
    function: type[torch.autograd.Function],
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    eps: float,
) -> Tensor:
    """Run a function outside autocast, on what autocast would give a convolution."""
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weights, biases = x.to(dtype), [w.to(dtype) for w in weights], [b.to(dtype) for b in biases]
    with torch.autocast(device, enabled=False):
        result: Tensor = function.apply(x, ACTIVATIONS[activation], eps, len(weights), *weights, *biases)
    return result


class _Maps(torch.autograd.Function):
    """x, L weights, L biases -> new maps. It cannot be differentiated twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation, eps: float, layers: int, *parameters: Tensor) -> Tensor:
        y, _ = _forward(ctx, x, activation, eps, parameters[:layers], parameters[layers:])
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> Any:
        g = grad_y.clone(memory_format=torch.contiguous_format)
        return _backward(ctx, g, torch.zeros_like(g), None)


class _Activated(torch.autograd.Function):
    """x, L weights, L biases -> activated stack. It cannot be differentiated twice."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation, eps: float, layers: int, *parameters: Tensor) -> Tensor:
        _, a = _forward(ctx, x, activation, eps, parameters[:layers], parameters[layers:])
        return torch.cat(a, 1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_activated: Tensor) -> Any:
        C = ctx.system.in_channels
        grad_a = grad_activated[:, C:].clone(memory_format=torch.contiguous_format)
        return _backward(ctx, torch.zeros_like(grad_a), grad_a, grad_activated[:, :C])


def _forward(
    ctx: Any, x: Tensor, activation: Activation, eps: float, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Solve the system, and keep for the backward what it needs: new maps y, and activations [a_0, a_1, ...]."""
    system = _System(x.shape[1], weights)
    a_0, saved_0 = activation.forward(x.contiguous(), eps)
    a: list[Tensor] = [a_0]
    saved: list[Saved] = [saved_0]
    # Sums of what each layer has received so far; a layer's part is its y once all before it have pushed.
    y = F.conv2d(a_0, system.from_input(), torch.cat(list(biases)), padding=system.padding)

    def solve(first: int, last: int) -> None:
        if last - first == 1:
            activated, kept = activation.forward(y[:, system.maps(first, last)].clone(), eps)
            a.append(activated)
            saved.append(kept)
            return
        middle = (first + last) // 2
        solve(first, middle)
        read = torch.cat(a[1 + first : 1 + middle], 1)
        y[:, system.maps(middle, last)] += F.conv2d(read, system.between(first, middle, last), padding=system.padding)
        solve(middle, last)

    solve(0, system.layers)
    ctx.save_for_backward(*weights, *a, *(tensor for kept in saved for tensor in kept))
    ctx.activation, ctx.system = activation, system
    system.weights = ()
    return y, a


def _backward(ctx: Any, g: Tensor, grad_a: Tensor, grad_a0: Tensor | None) -> Any:
    """Solve the transposed system.

    Args:
        ctx: what `_forward` filled.
        g: gradient of the new maps so far, (N, L * growth, H, W); made complete in place.
        grad_a: gradient of their activations so far; made complete in place.
        grad_a0: gradient of x's activation from outside, if any.
    """
    activation, system = ctx.activation, ctx.system
    L = system.layers
    system.weights, a, flat = ctx.saved_tensors[:L], ctx.saved_tensors[L : 2 * L + 1], ctx.saved_tensors[2 * L + 1 :]
    kept = len(flat) // (L + 1)
    saved = [flat[i * kept : (i + 1) * kept] for i in range(L + 1)]
    needs_x = ctx.needs_input_grad[0]
    needs_W = any(ctx.needs_input_grad[4 : 4 + L])
    needs_b = any(ctx.needs_input_grad[4 + L :])
    grad_W = [torch.empty_like(weight) for weight in system.weights] if needs_W else []

    def solve(first: int, last: int) -> None:
        """Make g complete for layers first .. last - 1, given what all layers from `last` on sent back to them."""
        if last - first == 1:
            maps = system.maps(first, last)
            g[:, maps] += activation.backward(grad_a[:, maps].contiguous(), a[1 + first], saved[1 + first])
            return
        middle = (first + last) // 2
        solve(middle, last)
        read = torch.cat(a[1 + first : 1 + middle], 1)
        sent, W = g[:, system.maps(middle, last)].contiguous(), system.between(first, middle, last)
        to_a, to_W, _ = system.transposed(sent, read, W, (True, needs_W, False))
        grad_a[:, system.maps(first, middle)] += to_a
        if needs_W:
            system.scatter(grad_W, to_W, middle, last, system.in_channels + first * system.growth)
        solve(first, middle)

    solve(0, L)
    to_a0, to_W, to_b = system.transposed(g, a[0], system.from_input(), (needs_x, needs_W, needs_b))
    grad_x = None
    if needs_x:
        grad_x = activation.backward(to_a0 if grad_a0 is None else to_a0.add_(grad_a0), a[0], saved[0])
    if needs_W:
        system.scatter(grad_W, to_W, 0, L, 0)
    grads_W = grad_W if needs_W else [None] * L
    grads_b = to_b.split(system.growth) if needs_b else [None] * L
    return grad_x, None, None, None, *grads_W, *grads_b


class _System:
    """The blocks of the triangular system's matrix, whose entries are convolutions."""

    def __init__(self, in_channels: int, weights: Sequence[Tensor]) -> None:
        self.in_channels = in_channels
        self.weights = weights
        self.growth = weights[0].shape[0]
        self.padding = weights[0].shape[-1] // 2
        self.layers = len(weights)

    def maps(self, first: int, last: int) -> slice:
        """Where the maps of layers first .. last - 1 are among all new maps."""
        return slice(first * self.growth, last * self.growth)

    def from_input(self) -> Tensor:
        """All W_l0, one over the other: (L * growth, C, k, k)."""
        return torch.cat([weight[:, : self.in_channels] for weight in self.weights])

    def between(self, first: int, middle: int, last: int) -> Tensor:
        """From the maps of layers first .. middle - 1 into layers middle .. last - 1."""
        read = slice(self.in_channels + first * self.growth, self.in_channels + middle * self.growth)
        return torch.cat([weight[:, read] for weight in self.weights[middle:last]])

    def transposed(
        self, g: Tensor, a: Tensor, W: Tensor, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of `b + W * a` for the masked ones of a, W and b, given that of the result."""
        ones, padding = [1, 1], [self.padding, self.padding]
        result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            g, a, W, [W.shape[0]], ones, padding, ones, False, [0, 0], 1, list(mask)
        )
        return result

    def scatter(self, grad_W: list[Tensor], block: Tensor, first: int, last: int, read: int) -> None:
        """Put a block's weight gradient where it belongs in the gradients of layers first .. last - 1."""
        for layer, part in zip(range(first, last), block.split(self.growth), strict=True):
            grad_W[layer][:, read : read + block.shape[1]] = part
