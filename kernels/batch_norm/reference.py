"""Batch normalization as the equation reads."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast.kernels._common.activation import Activation
from lorbms_fast.kernels._common.shapes import check_floating


def batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    momentum: float,
    eps: float,
    activation: Activation,
) -> Tensor:
    """Normalize every map over all samples to mean 0 and variance 1; then scale and shift, if there are parameters.

    `activation((x - mean) / sqrt(var + eps) * weight + bias)`, mean and biased variance over samples and positions
    (Ioffe and Szegedy, 2015); documented at `batch_norm_act`.
    """
    check_floating("x", x)
    F._verify_batch_size(x.size())  # type: ignore[attr-defined]
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    dimensions = 0, *range(2, x.dim())
    var, mean = torch.var_mean(exact, dimensions, correction=0, keepdim=True)
    with torch.no_grad():
        count = x.numel() // x.shape[1]
        unbiased = var.detach() * (count / (count - 1))
        for average, of_batch in ((running_mean, mean.detach()), (running_var, unbiased)):
            if average is not None:
                average.lerp_(of_batch.flatten().to(average.dtype), momentum)
    y = (exact - mean) / torch.sqrt(var + eps)
    if weight is not None:
        y = y * weight.view(mean.shape)
    return activation(y if bias is None else y + bias.view(mean.shape)).to(x.dtype)
