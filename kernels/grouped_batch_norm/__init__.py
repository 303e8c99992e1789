"""Batch normalisation of several batches that lie in one tensor, each with its own statistics."""

from torch import Tensor

from lorbms_fast.kernels.dispatch import Impl, resolve
from lorbms_fast.kernels.grouped_batch_norm import definition, fused


def grouped_batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float = 1e-5, impl: Impl | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each of `groups` consecutive, equal parts of the batch by its own mean and biased variance.

    Args:
        x: (groups * N, C, H, W).
        gamma: scale, (C,).
        beta: shift, (C,).
        groups: how many batches x holds, one after the other.
        eps: added to the variance.
        impl: form to run; None takes the one in force.

    Returns:
        The result, of x's shape; means and variances, (groups, C), not for differentiation.

    Raises:
        ValueError: the batch is not a multiple of `groups`.
    """
    form = definition if resolve(impl, x) == "reference" else fused
    y, means, variances = form.grouped_batch_norm(x, gamma, beta, groups, eps)
    return y, means.detach(), variances.detach()
