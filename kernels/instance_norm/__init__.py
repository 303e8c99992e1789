"""Instance normalisation without parameters (Ulyanov et al., 2016), alone or followed by ReLU."""

from torch import Tensor, nn

from lorbms_fast.kernels.dispatch import Impl, resolve
from lorbms_fast.kernels.instance_norm import definition, fused

EPS = 1e-9


def instance_norm(x: Tensor, eps: float = EPS, impl: Impl | None = None) -> Tensor:
    """`(x - mean) / sqrt(var + eps)`, mean and biased variance of each map of each sample.

    Args:
        x: (N, C, *positions).
        eps: added to the variance.
        impl: form to run; None takes the one in force.

    Returns:
        x's shape and dtype. The fused form returns contiguous maps.
    """
    return (definition if resolve(impl, x) == "reference" else fused).instance_norm(x, eps)


def instance_norm_relu(x: Tensor, eps: float = EPS, impl: Impl | None = None) -> Tensor:
    """`ReLU(instance_norm(x))`; arguments as there."""
    return (definition if resolve(impl, x) == "reference" else fused).instance_norm_relu(x, eps)


class InstanceNormReLU(nn.Module):
    """Instance norm without parameters and ReLU."""

    def __init__(self, eps: float = EPS, impl: Impl | None = None) -> None:
        super().__init__()
        self.eps, self.impl = eps, impl

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *positions) -> the same."""
        return instance_norm_relu(x, self.eps, self.impl)
