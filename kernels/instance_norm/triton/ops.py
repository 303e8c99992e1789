"""Instance norm in Triton: one launch where a map fits into a program's registers. Keeps the memory layout."""

from torch import Tensor

from lorbms_fast.kernels._common.normalization.triton.ops import normalize


def instance_norm(
    x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None, relu: bool = False
) -> Tensor:
    """(N, C, *positions) -> the same, in x's memory layout; documented in `reference.py`. Differentiable once."""
    y, _, _ = normalize(x, weight, bias, x.shape[0], eps, False, relu)
    return y


def instance_norm_relu(x: Tensor, eps: float) -> Tensor:
    """`ReLU(instance_norm(x))` in the same launch."""
    return instance_norm(x, eps, relu=True)
