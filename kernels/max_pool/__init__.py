"""2x2 max pooling, which keeps a byte for its backward."""

from torch import Tensor

from lorbms_fast.kernels._common.dispatch import TRITON, Impl, select_impl
from lorbms_fast.kernels.max_pool import fused, reference

if TRITON:
    from lorbms_fast.kernels.max_pool.triton import ops as triton_ops


def max_pool2x2(x: Tensor, impl: Impl | None = None) -> Tensor:
    """Take the maximum of each 2x2 square; a byte remembers which it was, where torch's own pool takes eight.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.equal(max_pool2x2(x), F.max_pool2d(x, 2))
    True

    Args:
        x: (N, C, H, W).
        impl: form to run; None takes the one in force.

    Returns:
        (N, C, H // 2, W // 2): an odd last row or column is left out.
    """
    form = select_impl(impl, x)
    if form == "triton":
        return triton_ops.max_pool2x2(x)
    return (reference if form == "reference" else fused).max_pool2x2(x)
