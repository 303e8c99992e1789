"""The passes as operations of torch's: on any device, for maps that lie in any way. Documented at the package."""

import torch
from torch import Tensor


def normalize(x: Tensor, x_hat: Tensor, eps: float) -> Tensor:
    """1 / deviations."""
    positions = tuple(range(2, x.dim()))
    if x.dtype in (torch.bfloat16, torch.float16):
        exact = x.float()
        rstd = normalize(exact, exact, eps)
        x_hat.copy_(exact)
        return rstd
    if x_hat is not x:
        x_hat.copy_(x)
    # Centred first: a difference of two large numbers would leave nothing of a map that lies far from zero.
    x_hat -= x_hat.mean(positions, keepdim=True)
    rstd = x_hat.square().mean(positions, keepdim=True).add_(eps).rsqrt_()
    x_hat *= rstd
    return rstd


def normalize_backward(grad: Tensor, x_hat: Tensor, rstd: Tensor, out: Tensor) -> None:
    """Write into `out`."""
    positions = tuple(range(2, grad.dim()))
    g, normalized = grad.to(rstd.dtype), x_hat.to(rstd.dtype)
    along = (g * normalized).mean(positions, keepdim=True)
    result = (g - g.mean(positions, keepdim=True)).addcmul_(normalized, along, value=-1)
    out.copy_(result.mul_(rstd))


def relu_normalize_backward(grad: Tensor, other: Tensor, x_hat: Tensor, rstd: Tensor, out: Tensor) -> None:
    """Write into `out`."""
    g = torch.ops.aten.threshold_backward(grad + other, x_hat, 0)
    normalize_backward(g, x_hat, rstd, out)


def relu_backward(grad: Tensor, x: Tensor, out: Tensor) -> None:
    """Write into `out`."""
    out.copy_(torch.ops.aten.threshold_backward(grad, x, 0))


def add_(out: Tensor, values: Tensor) -> None:
    """Add to `out`."""
    if out.element_size() < 4:
        # torch's loop over so few channels of 16 bits has no vector instructions unless both lie together.
        out.copy_(values + out.contiguous(memory_format=torch.channels_last))
    else:
        out += values


def add_relu_backward_(out: Tensor, grad: Tensor, x: Tensor) -> None:
    """Add to `out`."""
    add_(out, torch.ops.aten.threshold_backward(grad, x, 0))
