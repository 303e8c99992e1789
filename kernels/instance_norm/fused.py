"""Instance norm in the memory layout of its input: torch's own kernel for contiguous maps, ours for channels_last ones.

PyTorch's own copies channels_last maps to contiguous ones, leaves them there, and computes a normalized value as the
difference of two large numbers when a map lies far from zero. Ours reads differences from the map's first position.
Both keep x and each map's statistics for the backward and not the result, which others may change in place.
"""

from typing import Any

import torch
from torch import Tensor

from lorbms_fast.kernels._common import double_backward
from lorbms_fast.kernels._common.cpp.lines import DTYPES, empty_channels_last, line_stride
from lorbms_fast.kernels.instance_norm import cpp, reference

_DTYPES = (*DTYPES, torch.float16)


def instance_norm(
    x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None, relu: bool = False
) -> Tensor:
    """(N, C, *positions) -> the same, in x's memory layout; documented in `reference.py`.

    Args:
        x: (N, C, *positions).
        eps: added to the variance.
        weight: scale, (C,), or None.
        bias: shift, (C,), or None.
        relu: rectify the result.
    """
    if torch.compiler.is_compiling():  # whose compiler fuses the definition; torch's kernel would leave the layout
        of_x = reference.instance_norm_relu if relu else reference.instance_norm
        return of_x(x, eps, weight, bias)
    if is_channels_last(x, weight):
        result: Tensor = _ChannelsLastNorm.apply(x, weight, bias, eps, relu)
    elif relu and x.numel():
        result = _ContiguousNormReLU.apply(x, weight, bias, eps)
    else:
        result = torch.instance_norm(x, weight, bias, None, None, True, 0.0, eps, torch.backends.cudnn.enabled)
        if len(x) == 1 and result.requires_grad:  # of whose gradient in channels_last torch 2.13 makes something else
            result.register_hook(_contiguous)
    return result


def is_channels_last(x: Tensor, weight: Tensor | None = None) -> bool:
    """Say whether the kernel for channels_last maps, or slices of their channels, takes these."""
    dtypes = (None, x.dtype, torch.promote_types(x.dtype, torch.float32))
    return (
        x.dtype in _DTYPES
        and (None if weight is None else weight.dtype) in dtypes
        and x.dim() >= 3
        and not x.is_contiguous()
        and line_stride(x) is not None
    )


class _Norm(torch.autograd.Function):
    """Base of both layouts: the gradients of gradients."""

    @classmethod
    def defined(cls, ctx: Any, grad: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Any:
        """The backward that can be differentiated."""
        eps, relu = ctx.options
        of_x = reference.instance_norm_relu if relu else reference.instance_norm
        gradients = double_backward.by_definition(lambda x, *affine: of_x(x, eps, *affine), (x, weight, bias), grad)
        return *gradients, None, None


class _ChannelsLastNorm(_Norm):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool) -> Tensor:
        form = cpp if cpp.LOOPS.take(x) else _Torch
        y, mean, rstd = form.forward(x, weight, bias, eps, relu)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.options = eps, relu
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if double_backward.asked_for():
            return _Norm.defined(ctx, grad, x, weight, bias)
        grad = grad.to(x.dtype)
        grad = grad if line_stride(grad) is not None else empty_channels_last(x).copy_(grad)
        form = cpp if cpp.LOOPS.take(x, grad) else _Torch
        dx, sum_g, sum_along = form.backward(grad, x, mean, rstd, weight, bias, ctx.options[1])
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        to_weight = sum_along.sum(0).to(weight.dtype) if needs_weight else None
        return dx, to_weight, sum_g.sum(0).to(bias.dtype) if needs_bias else None, None, None


class _ContiguousNormReLU(_Norm):
    """Torch's kernel, batch norm of one sample that has all samples' maps, and ReLU.

    What ReLU let through is read from x again, so that one tensor is kept and not two.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        scale, shift = (None if p is None else p.repeat(len(x)) for p in (weight, bias))
        y, mean, rstd = torch.native_batch_norm(_one_sample(x), scale, shift, None, None, True, 0.0, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        ctx.options = eps, True
        return torch.ops.aten._unsafe_view(y.relu_(), x.shape)  # not a view, which nobody could change in place

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        if double_backward.asked_for():
            return _Norm.defined(ctx, grad, x, weight, bias)[:-1]
        (eps, _), (_, *needs, _) = ctx.options, ctx.needs_input_grad
        maps, N = _one_sample(x), len(x)
        y = maps - mean.view(-1, *[1] * (x.dim() - 2))
        scale = None if weight is None else weight.repeat(N)
        if scale is not None:
            y = _affine(y, rstd * scale, None if bias is None else bias.repeat(N))
        dx, *sums = torch.ops.aten.native_batch_norm_backward(
            torch.where(y <= 0, 0, _one_sample(grad)), maps, scale, None, None, mean, rstd, True, eps, [True, *needs]
        )
        of_affine = (s.view(N, -1).sum(0) if need else None for s, need in zip(sums, needs, strict=True))
        return dx.view(x.shape), *of_affine, None


def _contiguous(grad: Tensor | None) -> Tensor | None:
    return None if grad is None else grad.contiguous()


def _one_sample(x: Tensor) -> Tensor:
    """(N, C, *positions) -> (1, N C, *positions), contiguous."""
    return x.contiguous().flatten(0, 1).unsqueeze(0)


class _Torch:
    """The C++ loops' functions as operations of torch's, for any device and dtype."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Result; mean of the differences from the first position; 1 / deviations."""
        positions = tuple(range(2, x.dim()))
        difference = _from_first(x)
        mean = difference.mean(positions, keepdim=True)
        centred = difference - mean
        var = centred.square().mean(positions, keepdim=True) + eps
        rstd = torch.where(var == 0, 0, var.rsqrt())
        result = _affine(centred * rstd, weight, bias)
        y = empty_channels_last(x).copy_(result.relu_() if relu else result)
        return y, mean.flatten(1), rstd.flatten(1)

    @staticmethod
    def backward(
        grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor | None, bias: Tensor | None, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of x; the sums of the gradients of the result, and of their products with x_hat, of each map."""
        positions, of_map = tuple(range(2, x.dim())), (*x.shape[:2], *[1] * (x.dim() - 2))
        rstd = rstd.view(of_map)
        x_hat = (_from_first(x) - mean.view(of_map)) * rstd
        g = grad.to(rstd.dtype)
        if relu:
            g = torch.where(_affine(x_hat, weight, bias) <= 0, 0, g)
        sum_g, sum_along = g.sum(positions, keepdim=True), (g * x_hat).sum(positions, keepdim=True)
        count = x[0, 0].numel()
        factor = rstd if weight is None else rstd * weight.view(of_map[1], *of_map[2:])
        dx = empty_channels_last(x).copy_((g - sum_g / count - x_hat * (sum_along / count)) * factor)
        return dx, sum_g.flatten(1), sum_along.flatten(1)


def _from_first(x: Tensor) -> Tensor:
    """Differences from each map's first position, so that a flat map is exactly zero."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    first: Any = (..., *[slice(1)] * (x.dim() - 2))
    return exact - exact[first]


def _affine(x_hat: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    for_each_channel = (-1, *[1] * (x_hat.dim() - 2))
    y = x_hat if weight is None else x_hat * weight.view(for_each_channel)
    return y if bias is None else y + bias.view(for_each_channel)
