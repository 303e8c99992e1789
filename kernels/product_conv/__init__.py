"""Convolutions of few positions and many channels, transposed ones too, as products with the weight as it lies."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lorbms_fast.kernels._common import torchscript
from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.cpp.vectors import LANES
from lorbms_fast.kernels._common.dispatch import Impl, select_impl, transformed
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.in_form import InForm, under_the_name_of
from lorbms_fast.kernels._common.shapes import check_positions, of_each
from lorbms_fast.kernels.product_conv import fused, reference
from lorbms_fast.kernels.product_conv.reference import Sizes


def product_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sizes = 1, padding: int | Sizes = 0,
    impl: Impl | None = None,
) -> Tensor:  # fmt: skip
    """Convolve, `F.conv2d` or `F.conv3d`, where it pays by one product with the weight as it lies in memory.

    >>> x, weight = torch.randn(1, 256, 8, 8), torch.randn(256, 256, 4, 4)
    >>> plain = torch.nn.functional.conv2d(x, weight, stride=2, padding=1)
    >>> torch.testing.assert_close(product_conv(x, weight, stride=2, padding=1), plain, rtol=1e-4, atol=1e-3)

    It pays for weights of 131,072 values and more that some dozen positions are multiplied with: torch brings a weight
    into another order at every call, which takes longer than those products. That is for float32, and for maps of
    bfloat16 (autocast's) beside a weight of float32, on a CPU with AVX2 or AVX-512, a C++ compiler and, for bfloat16,
    without AMX, with channels in multiples of 16. Anything else is torch's own. All is multiplied and summed in
    float32. For the backward it keeps x and the weight.

    Args:
        x: (N, C, H, W) or (N, C, D, H, W).
        weight: (O, C, *taps).
        bias: (O,) or None.
        stride: of all dimensions of positions, or of each.
        padding: zeros on each side, likewise.
        impl: form to run, `reference` or `fused`; None takes the one in force. There is no Triton kernel.

    Returns:
        What torch's gives, in the layout that torch's own has.

    Raises:
        ValueError: x or the weight has other dimensions, stride or padding are not such numbers, or there is no such
            form.
        RuntimeError: torch's own refuses channels, dtypes or devices that do not fit.
    """
    check_positions(x, weight)
    dimensions = x.dim() - 2
    stride, padding = of_each("stride", stride, dimensions), of_each("padding", padding, dimensions)
    form = reference if select_impl(impl, x) == "reference" else fused
    return form.product_conv(x, weight, bias, stride, padding)


def product_conv_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sizes = 1, padding: int | Sizes = 0,
    output_padding: int | Sizes = 0, impl: Impl | None = None,
) -> Tensor:  # fmt: skip
    """Convolve the other way round, `F.conv_transpose2d` or `F.conv_transpose3d`; the rest as at `product_conv`.

    Where such a product does not pay, torch's own runs; for maps of bfloat16 and for channels_last images, the gradient
    of the bias is summed by itself, as torch, which sums it along with the weight's, takes up to four times as long.

    >>> x, weight = torch.randn(1, 256, 4, 4), torch.randn(256, 256, 4, 4)
    >>> plain = torch.nn.functional.conv_transpose2d(x, weight, stride=2, padding=1)
    >>> torch.testing.assert_close(product_conv_transposed(x, weight, None, 2, 1), plain, rtol=1e-4, atol=1e-3)

    The weight is (C, O, *taps); `output_padding` positions more come out at the end of each dimension.
    """
    check_positions(x, weight)
    named = {"stride": stride, "padding": padding, "output_padding": output_padding}
    sizes = (of_each(name, value, x.dim() - 2) for name, value in named.items())
    form = reference if select_impl(impl, x) == "reference" else fused
    return form.product_conv_transposed(x, weight, bias, *sizes)


class _ProductConv(InForm, _ConvNd):
    _dimensions: int
    _torchs_own: Any
    forward = torchscript.forward

    @leaf
    def _recorded(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size is not None or not self._asks(input):
            return super().forward(input, *(() if output_size is None else (output_size,)))
        stride, padding, more = self.stride, self.padding, self.output_padding
        assert not isinstance(padding, str)  # by a name, which is not asked about
        if self.transposed:
            return product_conv_transposed(input, self.weight, self.bias, stride, padding, more, self.impl)
        return product_conv(input, self.weight, self.bias, stride, padding, self.impl)

    def _asks(self, input: Tensor) -> bool:
        """Say whether to ask if it pays, which takes a while."""
        if torch.compiler.is_compiling() or transformed() or input.dim() != 2 + self._dimensions:
            return False
        stride: Any = self.stride
        steps = prod(stride) if isinstance(stride, tuple) else stride**self._dimensions
        few = fused.MOST * self.in_channels * (1 if self.transposed else steps)
        shifts = _shifts_transposed(self) and fused.sum_may_pay(input, compute_dtype(input))
        if not (input.numel() <= few or shifts) or why_no_product_conv(self) is not None:
            return False
        assert not isinstance(self.padding, str)  # by a name, which is not asked about
        maps = (self.in_channels, self.out_channels)[:: 1 if self.transposed else -1]
        return shifts or fused.may_pay(input, (*maps, *self.kernel_size), stride, self.padding, self.transposed)


def _shifts_transposed(conv: _ConvNd) -> bool:
    return conv.transposed and conv.bias is not None


class _ProductConvTranspose(_ProductConv):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve as torch's layer does."""
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._torchs_own(input, output_size)
        else:
            return self._recorded(input, *(() if output_size is None else (output_size,)))


@under_the_name_of(nn.Conv2d)
class ProductConv2d(_ProductConv, nn.Conv2d):
    """`torch.nn.Conv2d`, by `product_conv` where that pays; arguments, parameters and state dict are torch's.

    >>> ProductConv2d(256, 256, 4, stride=2, padding=1)(torch.randn(1, 256, 8, 8)).shape
    torch.Size([1, 256, 4, 4])
    """

    _dimensions, _torchs_own = 2, torchscript.torchs_own(nn.Conv2d)


@under_the_name_of(nn.Conv3d)
class ProductConv3d(_ProductConv, nn.Conv3d):
    """`torch.nn.Conv3d`, by `product_conv` where that pays; arguments, parameters and state dict are torch's.

    >>> ProductConv3d(128, 128, 3, stride=2, padding=1)(torch.randn(1, 128, 4, 4, 4)).shape
    torch.Size([1, 128, 2, 2, 2])
    """

    _dimensions, _torchs_own = 3, torchscript.torchs_own(nn.Conv3d)


@under_the_name_of(nn.ConvTranspose2d)
class ProductConvTranspose2d(_ProductConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` by `product_conv_transposed`; arguments, parameters and state dict are torch's.

    >>> ProductConvTranspose2d(256, 256, 4, stride=2, padding=1)(torch.randn(1, 256, 4, 4)).shape
    torch.Size([1, 256, 8, 8])
    """

    _dimensions, _torchs_own = 2, torchscript.torchs_own(nn.ConvTranspose2d)


@under_the_name_of(nn.ConvTranspose3d)
class ProductConvTranspose3d(_ProductConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` by `product_conv_transposed`; arguments, parameters and state dict are torch's.

    >>> ProductConvTranspose3d(256, 128, 2, stride=2)(torch.randn(1, 256, 2, 2, 2)).shape
    torch.Size([1, 128, 4, 4, 4])
    """

    _dimensions, _torchs_own = 3, torchscript.torchs_own(nn.ConvTranspose3d)


def why_no_product_conv(conv: _ConvNd) -> str | None:
    """Why a convolution cannot be such a product, or never pays as one, whatever the input; None if it may."""
    if "_conv_forward" in vars(conv):
        return "was changed"
    sizes = conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.output_padding
    if not all(isinstance(size, tuple) for size in sizes) or len({*map(len, sizes)}) > 1:
        return "sizes are not a number for each dimension"
    if conv.groups > 1 or conv.padding_mode != "zeros" or {*conv.dilation} != {1} or {*conv.kernel_size} == {1}:
        return "with groups, dilation or other edges than zeros, or of one tap"
    if _shifts_transposed(conv):  # whose bias' gradient may be summed apart, whatever it is
        return None
    if conv.in_channels % LANES or conv.out_channels % LANES:
        return "channels, in and out, are not multiples of 16"
    if conv.in_channels * conv.out_channels * prod(conv.kernel_size) < fused.LEAST:
        return f"fewer than {fused.LEAST} values in the weight"
    return None
