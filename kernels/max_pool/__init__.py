"""Maximum over squares of four, for the transition down."""

from torch import Tensor

from lorbms_fast.kernels._common.dispatch import TRITON, Impl, select_impl
from lorbms_fast.kernels.max_pool import fused, reference

if TRITON:
    from lorbms_fast.kernels.max_pool.triton import ops as triton_ops


def max_pool2x2(x: Tensor, impl: Impl | None = None) -> Tensor:
    """Greatest of each 2x2 square; the backward remembers in a byte, where torch's own takes eight, which it was.

    Args:
        x: (N, C, H, W).
        impl: form to run; None takes the one in force.

    Returns:
        (N, C, H // 2, W // 2): an odd last row or column is left out. Differentiable once.
    """
    form = select_impl(impl, x)
    if form == "triton":
        return triton_ops.max_pool2x2(x)
    return (reference if form == "reference" else fused).max_pool2x2(x)
