"""A fully connected layer of few samples, which takes as long as its weight is large."""

from torch import Tensor

from lorbms_fast.kernels._common.dispatch import Impl, select_impl
from lorbms_fast.kernels.lorbms.linear import fused, reference


def linear(x: Tensor, weight: Tensor, bias: Tensor, impl: Impl | None = None) -> Tensor:
    """`x @ weight.T + bias`.

    >>> linear(torch.randn(2, 32), torch.randn(16, 32), torch.zeros(16)).shape
    torch.Size([2, 16])

    x is (N, C), the weight (O, C), the bias (O,), the result (N, O).
    """
    return (reference if select_impl(impl, x) == "reference" else fused).linear(x, weight, bias)
