"""Activations without parameters, each with what its backward needs besides its own result."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lorbms_fast.kernels.instance_norm.fused import normalise, normalise_backward

Saved = tuple[Tensor, ...]


@dataclass(frozen=True)
class Activation:
    """`forward(x, eps) -> a, saved` and `backward(grad_a, a, saved) -> grad_x`; all (N, C, H, W), contiguous."""

    forward: Callable[[Tensor, float], tuple[Tensor, Saved]]
    backward: Callable[[Tensor, Tensor, Saved], Tensor]


def _relu(x: Tensor, eps: float) -> tuple[Tensor, Saved]:
    return torch.relu(x), ()


def _relu_backward(grad: Tensor, a: Tensor, saved: Saved) -> Tensor:
    return torch.ops.aten.threshold_backward(grad, a, 0)


def _instance_norm_relu(x: Tensor, eps: float) -> tuple[Tensor, Saved]:
    normalised, *kept = normalise(x, eps)
    return normalised.relu_(), tuple(kept)


def _instance_norm_relu_backward(grad: Tensor, a: Tensor, saved: Saved) -> Tensor:
    return normalise_backward(torch.ops.aten.threshold_backward(grad, a, 0), *saved)


ACTIVATIONS = {
    "relu": Activation(_relu, _relu_backward),
    "instance_norm_relu": Activation(_instance_norm_relu, _instance_norm_relu_backward),
}
