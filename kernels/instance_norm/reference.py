"""Instance normalization as the equation reads."""

import torch
from torch import Tensor

from lorbms_fast.kernels._common.activation import IDENTITY, RELU, Activation


def instance_norm(
    x: Tensor,
    eps: float = 1e-5,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    activation: Activation = IDENTITY,
) -> Tensor:
    """Normalize every map of every sample to mean 0 and variance 1; then scale and shift, if there are parameters.

    `activation((x - mean) / sqrt(var + eps) * weight + bias)`, mean and biased variance over the positions of one map
    (Ulyanov et al., 2016); documented at `instance_norm_act`. LORBMS's eps is 1e-9.
    """
    positions = tuple(range(2, x.dim()))
    var, mean = torch.var_mean(x, positions, correction=0, keepdim=True)
    y = (x - mean) / torch.sqrt(var + eps)
    for_each_channel = (-1, *(1 for _ in positions))
    if weight is not None:
        y = y * weight.view(for_each_channel)
    return activation(y if bias is None else y + bias.view(for_each_channel)).to(x.dtype)


def instance_norm_relu(
    x: Tensor, eps: float = 1e-5, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """`ReLU(instance_norm(x))`: the activation of LORBMS's encoder (thesis, Table 3.1)."""
    return instance_norm(x, eps, weight, bias, RELU)
