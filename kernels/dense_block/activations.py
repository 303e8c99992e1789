"""Activations without parameters, each with what its backward needs besides its own result."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lorbms_fast.kernels.instance_norm.fused import as_centred_channels

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
    """A batch norm whose channels are the maps of every sample; its kernel takes statistics in float32 or better."""
    centred = as_centred_channels(x)
    normalised, mean, rstd = torch.native_batch_norm(centred, None, None, None, None, True, 0.0, eps)
    return normalised.relu_().view_as(x), (centred, mean, rstd)


def _instance_norm_relu_backward(grad: Tensor, a: Tensor, saved: Saved) -> Tensor:
    centred, mean, rstd = saved
    through_relu = torch.ops.aten.threshold_backward(grad, a, 0).reshape_as(centred)
    result, _, _ = torch.ops.aten.native_batch_norm_backward(
        through_relu, centred, None, None, None, mean, rstd, True, 0.0, [True, False, False]
    )
    return result.view_as(a)


ACTIVATIONS = {
    "relu": Activation(_relu, _relu_backward),
    "instance_norm_relu": Activation(_instance_norm_relu, _instance_norm_relu_backward),
}
