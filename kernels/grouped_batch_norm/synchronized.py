"""Batch normalization of groups with the statistics of several processes' batches together."""

from collections.abc import Callable

import torch
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""From what this process has to what all have, along a new first dimension; differentiable."""


def synchronized_batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float, gather: Gather
) -> tuple[Tensor, Tensor, Tensor]:
    """`grouped_batch_norm`, as if each group held the samples that all processes have of it.

    The variance of all is the mean of the variances and the variance of the means: nothing cancels, and one exchange
    is enough. N is the same in every process; `gather` takes means and variances, (2, groups, C), to those of all
    processes, (processes, 2, groups, C).
    """
    parts = x.to(gamma.dtype).unflatten(0, (groups, -1))
    mean = parts.mean((1, 3, 4))
    variance = (parts - _over_maps(mean)).square().mean((1, 3, 4))
    means, variances = gather(torch.stack([mean, variance])).unbind(1)
    mean = means.mean(0)
    variance = variances.mean(0) + (means - mean).square().mean(0)
    y = (parts - _over_maps(mean)) * _over_maps(gamma * torch.rsqrt(variance + eps)) + _over_maps(beta.expand_as(mean))
    return y.flatten(0, 1).to(x.dtype), mean.detach(), variance.detach()


def _over_maps(statistics: Tensor) -> Tensor:
    """(groups, C) for every sample and position: (groups, 1, C, 1, 1)."""
    return statistics[:, None, :, None, None]
