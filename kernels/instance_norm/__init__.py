"""Instance normalization without parameters (Ulyanov et al., 2016), alone or followed by ReLU."""

from torch import Tensor, nn

from lorbms_fast.kernels._common.dispatch import TRITON, Impl, select_impl
from lorbms_fast.kernels.instance_norm import fused, reference
from lorbms_fast.kernels.instance_norm.modules import InstanceNorm2d, InstanceNorm3d

if TRITON:
    from lorbms_fast.kernels.instance_norm.triton import ops as triton_ops

__all__ = ["InstanceNorm2d", "InstanceNorm3d", "InstanceNormReLU", "instance_norm", "instance_norm_relu"]

EPS = 1e-9


def instance_norm(x: Tensor, eps: float = EPS, impl: Impl | None = None) -> Tensor:
    """`(x - mean) / sqrt(var + eps)`, mean and biased variance of each map of each sample.

    Args:
        x: (N, C, *positions).
        eps: added to the variance.
        impl: form to run; None takes the one in force.

    Returns:
        x's shape, dtype and memory layout.
    """
    form = select_impl(impl, x)
    if form == "triton":
        return triton_ops.instance_norm(x, eps)
    return (reference if form == "reference" else fused).instance_norm(x, eps)


def instance_norm_relu(x: Tensor, eps: float = EPS, impl: Impl | None = None) -> Tensor:
    """`ReLU(instance_norm(x))`, in one pass over x; arguments and result as `instance_norm`'s."""
    form = select_impl(impl, x)
    if form == "triton":
        return triton_ops.instance_norm_relu(x, eps)
    return (reference if form == "reference" else fused).instance_norm_relu(x, eps)


class InstanceNormReLU(nn.Module):
    """Instance norm without parameters and ReLU, as a layer: (N, C, H, W) -> the same shape.

    Args:
        eps: added to the variance.
        impl: form to run; None takes the one in force.
    """

    def __init__(self, eps: float = EPS, impl: Impl | None = None) -> None:
        super().__init__()
        self.eps, self.impl = eps, impl

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *positions) -> the same."""
        return instance_norm_relu(x, self.eps, self.impl)
