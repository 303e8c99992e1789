"""Instance normalization as the equation reads."""

import torch
from torch import Tensor


def instance_norm(x: Tensor, eps: float = 1e-9) -> Tensor:
    """Normalize every map of every sample to mean 0 and variance 1, without affine parameters.

    `(x - mean) / sqrt(var + eps)`, mean and biased variance over the positions of one map (Ulyanov et al., 2016).

    Args:
        x: (N, C, *positions), floating point, any memory layout.
        eps: added to the variance. LORBMS uses 1e-9.

    Returns:
        Tensor of x's shape and dtype.
    """
    positions = tuple(range(2, x.dim()))
    var, mean = torch.var_mean(x, positions, correction=0, keepdim=True)
    return (x - mean) / torch.sqrt(var + eps)


def instance_norm_relu(x: Tensor, eps: float = 1e-9) -> Tensor:
    """`ReLU(instance_norm(x))`: the activation of LORBMS's encoder (thesis, Table 3.1)."""
    return torch.relu(instance_norm(x, eps))
