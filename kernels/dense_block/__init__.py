"""Dense blocks (Huang et al., 2017) whose layers share one activation without parameters."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from lorbms_fast.kernels.dense_block import definition, fused
from lorbms_fast.kernels.dispatch import TRITON, Impl, resolve
from lorbms_fast.kernels.instance_norm.definition import instance_norm_relu

if TRITON:
    from lorbms_fast.kernels.dense_block import triton

ActivationName = Literal["relu", "instance_norm_relu"]
EPS = 1e-9


def dense_block(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: ActivationName = "relu",
    eps: float = EPS,
    impl: Impl | None = None,
) -> Tensor:
    """Append the maps of L convolutions to x, each reading the activation of x and of all maps before it.

    Args:
        x: (N, C, H, W).
        weights: L kernels (growth, C + l * growth, k, k), k odd.
        biases: L vectors (growth,).
        activation: ReLU, or instance norm without parameters and ReLU.
        eps: of the instance norm.
        impl: form to run; None takes the one in force.

    Returns:
        (N, C + L * growth, H, W): x, then each layer's maps, not activated. Differentiable once.
    """
    form = resolve(impl, x)
    if form == "reference":
        return definition.dense_block(x, weights, biases, _function(activation, eps))
    if form == "triton":
        return torch.cat([x, triton.maps_and_activated(x, list(weights), list(biases), activation, eps)[0]], 1)
    return torch.cat([x, fused.dense_block_maps(x, weights, biases, activation, eps)], 1)


def dense_block_maps(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: ActivationName = "relu",
    eps: float = EPS,
    impl: Impl | None = None,
) -> Tensor:
    """As `dense_block`, but only the new maps: (N, L * growth, H, W)."""
    form = resolve(impl, x)
    if form == "reference":
        return definition.dense_block(x, weights, biases, _function(activation, eps))[:, x.shape[1] :]
    if form == "triton":
        return triton.maps_and_activated(x, list(weights), list(biases), activation, eps)[0]
    return fused.dense_block_maps(x, weights, biases, activation, eps)


def dense_block_activated(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: ActivationName = "relu",
    eps: float = EPS,
    impl: Impl | None = None,
) -> Tensor:
    """`activation(dense_block(x, ...))`, where the fast form has all of it already but for the last layer's maps."""
    form = resolve(impl, x)
    if form == "reference":
        function = _function(activation, eps)
        return function(definition.dense_block(x, weights, biases, function))
    if form == "triton":
        return triton.maps_and_activated(x, list(weights), list(biases), activation, eps)[1]
    return fused.dense_block_activated(x, weights, biases, activation, eps)


class DenseBlock(nn.Module):
    """A dense block with its parameters: `layer0.weight`, `layer0.bias`, `layer1.weight`, ...

    Args:
        in_channels: maps of the input.
        layers: how many layers.
        growth: maps each layer appends.
        activation: ReLU, or instance norm without parameters and ReLU, before each convolution.
        kernel_size: odd.
        eps: of the instance norm.
        impl: form to run; None takes the one in force.
    """

    def __init__(
        self,
        in_channels: int,
        layers: int,
        growth: int = 16,
        *,
        activation: ActivationName = "relu",
        kernel_size: int = 3,
        eps: float = EPS,
        impl: Impl | None = None,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size {kernel_size} is even: height and width could not stay as they are")
        self.activation: ActivationName = activation
        self.eps, self.impl = eps, impl
        for i in range(layers):
            self.add_module(f"layer{i}", nn.Conv2d(in_channels + i * growth, growth, kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, in_channels + layers * growth, H, W)."""
        layers = list(self.children())
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        return dense_block(x, weights, biases, self.activation, self.eps, self.impl)  # type: ignore[arg-type]


def _function(activation: ActivationName, eps: float) -> definition.Activation:
    return torch.relu if activation == "relu" else partial(instance_norm_relu, eps=eps)
