"""Instance normalization (Ulyanov et al., 2016) as functions, alone or followed by ReLU."""

from torch import Tensor

from lorbms_fast.kernels._common.dispatch import TRITON, Form, Impl, select_impl
from lorbms_fast.kernels.instance_norm import fused, reference

if TRITON:
    from lorbms_fast.kernels.instance_norm.triton import ops as triton_ops


def instance_norm(x: Tensor, eps: float = 1e-5, impl: Impl | None = None) -> Tensor:
    """Normalize each map of each sample: `(x - mean) / sqrt(var + eps)`, with the biased variance.

    >>> x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    >>> y = instance_norm(x)
    >>> torch.testing.assert_close(y, F.instance_norm(x))
    >>> y.is_contiguous(memory_format=torch.channels_last)
    True

    Args:
        x: (N, C, *positions).
        eps: added to the variance.
        impl: form to run; None takes the one in force.

    Returns:
        x's shape, dtype and memory layout.
    """
    return run(select_impl(impl, x), x, eps)


def instance_norm_relu(x: Tensor, eps: float = 1e-5, impl: Impl | None = None) -> Tensor:
    """`ReLU(instance_norm(x))`, of which only x is kept for the backward; arguments and result as `instance_norm`'s.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> torch.testing.assert_close(instance_norm_relu(x), F.instance_norm(x).relu())
    """
    return run(select_impl(impl, x), x, eps, relu=True)


def run(
    form: Form, x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None, relu: bool = False
) -> Tensor:
    """Normalize in one form."""
    if form == "reference":
        of_x = reference.instance_norm_relu if relu else reference.instance_norm
        return of_x(x, eps, weight, bias)
    return (triton_ops if form == "triton" else fused).instance_norm(x, eps, weight, bias, relu)
