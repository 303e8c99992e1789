"""Batch normalization of several batches that lie in one tensor, each with its own statistics."""

import torch
from torch import Tensor

from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check_of_maps, misfit, unless_traced
from lorbms_fast.kernels.grouped_batch_norm import fused, reference

if HAS_TRITON:
    from lorbms_fast.kernels._common.normalization.triton.ops import normalize


@operation(kernels="_common.normalization")
def grouped_batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float = 1e-5, impl: Impl | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize each of `groups` consecutive, equal parts of the batch by its own mean and biased variance.

    >>> x = torch.randn(2 * 4, 3, 8, 8)
    >>> y, means, variances = grouped_batch_norm(x, torch.ones(3), torch.zeros(3), groups=2)
    >>> torch.testing.assert_close(y[:4], F.batch_norm(x[:4], None, None, training=True))
    >>> means.shape
    torch.Size([2, 3])

    x is (groups * N, C, H, W), its batches one after the other; gamma (scale) and beta (shift) are (C,); eps is
    added to the variance. x, gamma and beta are of one floating-point dtype; beside x in 16 bits the others may be
    float32. Returns the result, of x's shape and dtype, and means and variances, (groups, C), not for differentiation.
    Raises ValueError if the batch is not a multiple of `groups`, or a shape does not fit, and RuntimeError, torch's
    own, for other dtypes.
    """
    return _normalized(x, gamma, beta, groups, eps, impl, relu_before=False)


@operation(kernels="_common.normalization")
def relu_grouped_batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float = 1e-5, impl: Impl | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """`grouped_batch_norm(ReLU(x), ...)`: means and variances are those of the rectified values.

    Arguments, dtypes and errors are its own.

    >>> x = torch.randn(2 * 4, 3, 8, 8)
    >>> y, _, _ = relu_grouped_batch_norm(x, torch.ones(3), torch.zeros(3), groups=2)
    >>> torch.testing.assert_close(y[4:], F.batch_norm(x[4:].relu(), None, None, training=True))
    """
    return _normalized(x, gamma, beta, groups, eps, impl, relu_before=True)


def _normalized(
    x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float, impl: Impl | None, relu_before: bool
) -> tuple[Tensor, Tensor, Tensor]:
    if x.dim() != 4:
        raise misfit("x", x, "(groups * N, C, H, W)")
    check_of_maps(x, ("gamma", "beta"), gamma, beta)
    check_groups(x, groups)
    form = select_impl(impl, x)
    if form == "triton":
        return normalize(x, gamma, beta, groups, eps, relu_before, "identity", 0.0)
    x = torch.relu(x) if relu_before else x
    y, means, variances = (reference if form == "reference" else fused).grouped_batch_norm(x, gamma, beta, groups, eps)
    return y, means.detach(), variances.detach()


@unless_traced
def check_groups(x: Tensor, groups: int) -> None:
    """Raise ValueError unless the batch divides into groups."""
    if groups < 1 or x.shape[0] % groups:
        raise ValueError(f"a batch of {x.shape[0]} does not divide into {groups} groups")
