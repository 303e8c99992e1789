"""Batch norm of groups as a layer with running averages."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.shapes import unless_traced
from lorbms_fast.kernels.grouped_batch_norm.functional import check_groups, grouped_batch_norm, relu_grouped_batch_norm
from lorbms_fast.kernels.grouped_batch_norm.synchronized import Gather, synchronized_batch_norm


class GroupedBatchNorm2d(nn.Module):
    """Batch norm of several batches in one tensor, each by its own statistics; running averages serve evaluation.

    >>> norm = GroupedBatchNorm2d(3)
    >>> norm(torch.randn(2 * 4, 3, 8, 8), groups=2).shape
    torch.Size([8, 3, 8, 8])

    The averages follow one group after the other, and only while the layer's own parameters are trained: a loss that
    goes through it to others leaves them alone. Where `gather` is set, a batch is that of all processes together.

    Args:
        channels: maps of the input.
        eps: added to the variance.
        decay: of the running averages, which are of the biased variance.
        relu_first: whether to rectify the input before.
    """

    gather: Gather | None = None

    def __init__(self, channels: int, eps: float = 1e-5, decay: float = 0.99, relu_first: bool = False) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps, self.decay, self.relu_first = eps, decay, relu_first

    def extra_repr(self) -> str:
        """Options, by their names."""
        return f"{len(self.gamma)}, eps={self.eps}, decay={self.decay}, relu_first={self.relu_first}"

    @leaf
    def forward(self, input: Tensor, groups: int = 1, found: "list[Statistics] | None" = None) -> Tensor:
        """(groups * N, C, H, W) -> the same.

        Raises ValueError for other dimensions, a batch that is no such multiple, or in training one value a channel.

        The list `found` takes the statistics, for `follow` to move the averages of several layers at once.
        """
        x = input
        if x.dim() != 4:
            raise ValueError(f"expected 4D input (got {x.dim()}D input)")
        check_groups(x, groups)
        recorded = torch.jit.is_tracing()  # type: ignore[attr-defined]
        if not self.training or not (recorded or x.shape[0]):  # no samples have no statistics
            x = torch.relu(x) if self.relu_first else x
            return F.batch_norm(x, self.running_mean, self.running_var, self.gamma, self.beta, eps=self.eps)
        if self.gather is None:
            _refuse_one_value(x, groups)
        y, *statistics = self._normalized(x, groups)
        own = Statistics(self, *statistics)
        if found is None:
            follow([own])
        else:
            found.append(own)
        return y

    def _normalized(self, x: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
        """The result; means and biased variances, (groups, C)."""
        if self.gather is not None:
            x = torch.relu(x) if self.relu_first else x
            return synchronized_batch_norm(x, self.gamma, self.beta, groups, self.eps, self.gather)
        if groups > 1 or self.relu_first:
            norm = relu_grouped_batch_norm if self.relu_first else grouped_batch_norm
            return norm(x, self.gamma, self.beta, groups, self.eps)
        mean, var = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
        y = F.batch_norm(x, mean, var, self.gamma, self.beta, training=True, momentum=1.0, eps=self.eps)
        n = x.numel() // x.shape[1]  # torch reports the unbiased variance
        return y, mean[None], var[None] * ((n - 1) / n)


@unless_traced
def _refuse_one_value(x: Tensor, groups: int) -> None:
    if x.shape[2] * x.shape[3] == 1 and x.shape[0] == groups:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")


class Statistics(NamedTuple):
    """Means and variances that a layer has found, both (groups, C)."""

    layer: GroupedBatchNorm2d
    means: Tensor
    variances: Tensor


@torch.no_grad()
def follow(found: Sequence[Statistics]) -> None:
    """Move the running averages of layers of one decay towards what they found, if the layers are being trained."""
    if found and found[0].layer.gamma.requires_grad:
        averages = [average for one in found for average in (one.layer.running_mean, one.layer.running_var)]
        values = [of_kind.unbind() for one in found for of_kind in (one.means, one.variances)]
        for of_group in zip(*values, strict=True):
            targets = [value.to(average.dtype) for value, average in zip(of_group, averages, strict=True)]
            torch._foreach_lerp_(averages, targets, 1 - found[0].layer.decay)
