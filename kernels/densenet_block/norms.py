"""Batch norms and ReLUs between the convolutions of a DenseNet's block, as operations of torch's; `cpp.py` has loops.

Maps lie in matrices (M, C): a row is a position of a sample, a column a map. Vectors (C,) are without gaps and have the
dtype that sums are taken in: float32 for 16-bit maps. There is no autograd here.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Norm(NamedTuple):
    """A batch norm with the statistics that it uses."""

    mean: Tensor
    var: Tensor
    weight: Tensor
    bias: Tensor
    eps: float


def matrix(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N * H * W, C), a row for each position: in the same memory if the maps are channels_last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def statistics(x: Tensor, mean: Tensor, var: Tensor) -> None:
    """Write the columns' means and biased variances; safe for columns far from zero."""
    for result, of_x in zip((var, mean), torch.var_mean(_exact(x), 0, correction=0), strict=True):
        result.copy_(of_x)


def norm_relu(x: Tensor, norm: Norm, out: Tensor) -> None:
    """`out = ReLU(norm(x))`."""
    out.copy_(torch.addcmul(norm.bias, _exact(x) - norm.mean, _scale(norm)).relu_())


def sums(grad: Tensor, x: Tensor, norm: Norm, sum_g: Tensor, sum_along: Tensor, add_to: Tensor) -> None:
    """Add columns' sums of g to `sum_g`, of `g (x - mean)` to `sum_along`, and `scale g` to `add_to`.

    g is the part of `grad` that the ReLU of `norm_relu` lets through; scale is `weight / sqrt(var + eps)`.
    """
    g, centred = _through(grad, x, norm)
    sum_g += g.sum(0)
    sum_along += (g * centred).sum(0)
    add_to += (g * _scale(norm)).to(add_to.dtype)


def norm_relu_backward_(grad: Tensor, x: Tensor, norm: Norm, sum_g: Tensor, sum_along: Tensor, of_batch: bool) -> None:
    """Make of the gradient of `ReLU(norm(x))` that of x, and write those of the norm's bias and weight."""
    g, centred = _through(grad, x, norm)
    sum_g.copy_(g.sum(0))
    sum_along.copy_((g * centred).sum(0))
    constant, slope = torch.zeros_like(sum_g), torch.zeros_like(sum_g)
    add_line(len(x), norm, sum_g, sum_along, constant, slope, of_batch)
    grad.copy_((g * _scale(norm)).sub_(constant).addcmul_(centred, slope, value=-1))


def less_line(
    grad: Tensor, x: Tensor, mean: Tensor, constant: Tensor, slope: Tensor, out: Tensor, factors: Tensor | None = None
) -> None:
    """`out = (grad - constant - (x - mean) slope) factors`; out may be grad.

    Each row of factors is for as many rows of x.
    """
    result = (_exact(grad) - constant).addcmul_(_exact(x) - mean, slope, value=-1)
    if factors is not None:
        result.unflatten(0, (len(factors), -1)).mul_(factors.unsqueeze(1))
    out.copy_(result)


def add_line(
    rows: int, norm: Norm, sum_g: Tensor, sum_along: Tensor, constant: Tensor, slope: Tensor, of_batch: bool
) -> None:
    """Make of `sum_along` the gradient of the norm's weight; before, add what statistics of the batch send back.

    That is `scale (mean(g) + x_hat mean(g x_hat))` of each of the rows, a line in x: `constant + (x - mean) slope`.
    """
    rstd = (norm.var + norm.eps).rsqrt_()
    if of_batch:
        share = norm.weight * rstd / rows
        constant += share * sum_g
        slope += share * rstd * rstd * sum_along
    sum_along *= rstd


def _through(grad: Tensor, x: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Part of a gradient that the ReLU lets through; `x - mean`."""
    centred = _exact(x) - norm.mean
    return torch.where(torch.addcmul(norm.bias, centred, _scale(norm)) <= 0, 0, _exact(grad)), centred


def _scale(norm: Norm) -> Tensor:
    return norm.weight * (norm.var + norm.eps).rsqrt_()


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
