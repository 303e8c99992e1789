"""The C++ loops' functions as operations of torch's, for any device and dtype: of channels_last and contiguous maps."""

from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common.activation import IDENTITY, NAMES, Activation
from lorbms_fast.kernels._common.cpp.lines import empty_channels_last


def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, activation: int, slope: float
) -> tuple[Tensor, Tensor]:
    """Result; of each map, mean (of differences from the first position, unless contiguous) and 1 / deviation."""
    how = Activation(NAMES[activation], slope)
    if x.is_contiguous():
        scale, shift = (None if p is None else p.repeat(len(x)) for p in (weight, bias))
        y, mean, rstd = torch.native_batch_norm(_one_sample(x), scale, shift, None, None, True, 0.0, eps)
        # No view of what nobody else has: autograd would refuse to have it changed in place.
        return torch.ops.aten._unsafe_view(activated(y, how), x.shape), torch.stack((mean, rstd))
    positions = tuple(range(2, x.dim()))
    difference = _from_first(x)
    mean = difference.mean(positions, keepdim=True)
    centred = difference - mean
    var = centred.square().mean(positions, keepdim=True) + eps
    rstd = torch.where(var == 0, 0, var.rsqrt())
    y = empty_channels_last(x).copy_(activated(_affine(centred * rstd, weight, bias), how))
    return y, torch.stack((mean.flatten(1), rstd.flatten(1)))


def backward(
    grad: Tensor, x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None, activation: int,
    slope: float,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of x, scale and shift, in their dtypes."""
    how, (mean, rstd) = Activation(NAMES[activation], slope), statistics
    of_map = (*x.shape[:2], *[1] * (x.dim() - 2))
    if x.is_contiguous():
        scale, shift = (None if p is None else p.repeat(len(x)) for p in (weight, bias))
        maps, g = _one_sample(x), _one_sample(grad)
        if how != IDENTITY:  # what it let through is found from x again
            y = (maps - mean.view(-1, *of_map[2:])) * rstd.view(-1, *of_map[2:])
            g = _through(g, _affine(y, scale, shift), how).to(x.dtype)
        of_bn = torch.ops.aten.native_batch_norm_backward
        dx, along, summed = of_bn(g, maps, scale, None, None, mean, rstd, True, 0.0, [True] * 3)
        return dx.view(x.shape), _added_up(along, weight), _added_up(summed, bias)
    positions = tuple(range(2, x.dim()))
    rstd = rstd.view(of_map)
    x_hat = (_from_first(x) - mean.view(of_map)) * rstd
    g = _through(grad.to(rstd.dtype), _affine(x_hat, weight, bias), how)
    sum_g, sum_along = g.sum(positions, keepdim=True), (g * x_hat).sum(positions, keepdim=True)
    count = x[0, 0].numel()
    factor = rstd if weight is None else rstd * weight.view(of_map[1], *of_map[2:])
    dx = empty_channels_last(x).copy_((g - sum_g / count - x_hat * (sum_along / count)) * factor)
    return dx, _added_up(sum_along, weight), _added_up(sum_g, bias)


def activated(y: Tensor, how: Activation) -> Tensor:
    """The activation of what nobody else needs."""
    if how.name == "relu":
        return y.relu_()
    if how.name == "leaky_relu":
        return torch.nn.functional.leaky_relu_(y, how.slope)
    return how(y)


def _through(grad: Tensor, y: Tensor, how: Activation) -> Tensor:
    """The gradient of y from that of its activation."""
    aten = torch.ops.aten
    if how.name in ("relu", "leaky_relu"):
        return torch.where(y <= 0, grad * how.slope if how.slope else 0, grad)
    if how.name == "silu":
        return aten.silu_backward(grad.to(y.dtype), y)
    if how.name in ("gelu", "gelu_tanh"):
        return aten.gelu_backward(grad.to(y.dtype), y, approximate="tanh" if how.name == "gelu_tanh" else "none")
    return grad


def _added_up(sums: Tensor, parameter: Tensor | None) -> Tensor | None:
    """The gradient of a parameter from each map's."""
    if parameter is None:
        return None
    exact = torch.promote_types(sums.dtype, torch.float32)
    return sums.view(-1, *parameter.shape).sum(0, dtype=exact).to(parameter.dtype)


def _one_sample(x: Tensor) -> Tensor:
    """(N, C, *positions) -> (1, N C, *positions), contiguous."""
    return x.contiguous().flatten(0, 1).unsqueeze(0)


def _from_first(x: Tensor) -> Tensor:
    """Differences from each map's first position, so that a flat map is exactly zero."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    first: Any = (..., *[slice(1)] * (x.dim() - 2))
    return exact - exact[first]


def _affine(x_hat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    for_each_channel = (-1, *[1] * (x_hat.dim() - 2))
    y = x_hat if weight is None else x_hat * weight.view(for_each_channel)
    return y if bias is None else y + bias.view(for_each_channel)
