"""What happens between the convolutions of a DenseNet's block, as operations of torch's; `cpp.py` has it as loops.

Maps lie in matrices (M, C): a row is a position of a sample, a column a map. Vectors (C,) have the dtype that sums are
taken in: float32 for 16-bit maps. There is no autograd here.
"""

import torch
from torch import Tensor


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Means and biased variances of the columns, safe for columns far from zero."""
    var, mean = torch.var_mean(_exact(x), 0, correction=0)
    return mean, var


def affine_relu(x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, out: Tensor) -> None:
    """`out = ReLU((x - mean) scale + shift)`."""
    out.copy_(torch.addcmul(shift, _exact(x) - mean, scale).relu_())


def relu_sums(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    shift: Tensor,
    sum_g: Tensor,
    sum_along: Tensor,
    add_to: Tensor | None,
) -> None:
    """Add columns' sums of g to `sum_g`, of `g (x - mean)` to `sum_along`, and `scale g` to `add_to`.

    g is the part of `grad` that the ReLU of `affine_relu` lets through.
    """
    centred = _exact(x) - mean
    g = _through(grad, centred, scale, shift)
    sum_g += g.sum(0)
    sum_along += (g * centred).sum(0)
    if add_to is not None:
        add_to += (g * scale).to(add_to.dtype)


def relu_backward(
    grad: Tensor, x: Tensor, mean: Tensor, scale: Tensor, shift: Tensor, constant: Tensor, slope: Tensor, out: Tensor
) -> None:
    """`out = scale g - constant - (x - mean) slope`, with g as in `relu_sums`; out may be grad."""
    centred = _exact(x) - mean
    out.copy_(_through(grad, centred, scale, shift).mul_(scale).sub_(constant).addcmul_(centred, slope, value=-1))


def less_line(grad: Tensor, x: Tensor, mean: Tensor, constant: Tensor, slope: Tensor, out: Tensor) -> None:
    """`out = grad - constant - (x - mean) slope`; out may be grad."""
    out.copy_((_exact(grad) - constant).addcmul_(_exact(x) - mean, slope, value=-1))


def _through(grad: Tensor, centred: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.where(torch.addcmul(shift, centred, scale) <= 0, 0, _exact(grad))


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
