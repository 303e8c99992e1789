"""Instance norm by torch's batch norm kernel: a map of a sample is a channel of a batch of one."""

import torch
from torch import Tensor


def instance_norm(x: Tensor, eps: float) -> Tensor:
    """(N, C, *positions) -> the same; documented at the definition."""
    normalised, _, _ = torch.native_batch_norm(as_centred_channels(x), None, None, None, None, True, 0.0, eps)
    return normalised.view(x.shape)


def as_centred_channels(x: Tensor) -> Tensor:
    """Every map of every sample as a channel, minus its mean: (N, C, *positions) -> (1, N * C, *positions).

    The kernel computes `x * rstd - mean * rstd`, which for a nearly constant map is a difference of large numbers
    unless its mean is gone before. It needs contiguous maps: on a channels_last view of one sample the backward of
    torch 2.13 gives wrong gradients.
    """
    maps = x.contiguous().reshape(1, -1, *x.shape[2:])
    return maps - maps.mean(tuple(range(2, maps.dim())), keepdim=True)


def instance_norm_relu(x: Tensor, eps: float) -> Tensor:
    """`ReLU(instance_norm(x))`."""
    return torch.relu_(instance_norm(x, eps))
