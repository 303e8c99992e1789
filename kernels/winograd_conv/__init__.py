"""Convolutions of 3x3, 3x3x3 and 1x3x3 taps with a quarter of the multiplications, on the CPU: Winograd's algorithm."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lorbms_fast.kernels._common import torchscript
from lorbms_fast.kernels._common.dispatch import Impl, select_impl, transformed
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.in_form import InForm, under_the_name_of
from lorbms_fast.kernels._common.shapes import check_positions, of_each
from lorbms_fast.kernels.winograd_conv import fused, reference


def winograd_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int | reference.Padding = 0,
    impl: Impl | None = None,
) -> Tensor:  # fmt: skip
    """Convolve with 3x3 or 3x3x3 taps, as `F.conv2d` or `F.conv3d`, where it pays by Winograd's algorithm.

    >>> x, weight = torch.randn(2, 32, 16, 16), torch.randn(48, 32, 3, 3)
    >>> plain = F.conv2d(x, weight, padding=1)
    >>> torch.testing.assert_close(winograd_conv(x, weight, padding=1), plain, rtol=1e-4, atol=1e-3)

    It pays for float32 and bfloat16 (autocast's, too) with numbers of channels that are multiples of 16 and maps that
    are large beside these, on a CPU with AVX2 or AVX-512, a C++ compiler and, for bfloat16, without AMX. Anything else
    is torch's own. In float32 results are off by two to five times as much as torch's, about a millionth of the largest
    one; in bfloat16 by no more than its rounding. What is infinite or NaN makes NaN of the tiles of 4x4 or 8x8 results
    that it is in. For the backward it keeps x and the weight, as torch does (Lavin and Gray, 2015, arXiv 1509.09308).
    Volumes are convolved slice by slice.

    Args:
        x: (N, C, H, W) or (N, C, D, H, W).
        weight: (O, C, 3, 3) or (O, C, 3, 3, 3).
        bias: (O,) or None.
        padding: zeros on each side, of all dimensions of positions, or of each.
        impl: form to run, `reference` or `fused`; None takes the one in force. There is no Triton kernel.

    Returns:
        (N, O, *size), each side 2 padding - 2 longer than x's, in the layout that torch's own has.

    Raises:
        ValueError: x or the weight has other dimensions, the padding is not such numbers, or there is no such form.
        RuntimeError: torch's own refuses channels, dtypes or devices that do not fit.
    """
    check_positions(x, weight)
    return _convolved(x, weight, bias, of_each("padding", padding, x.dim() - 2), impl)


def _convolved(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding: reference.Padding, impl: Impl | None, edges: str = "zeros"
) -> Tensor:
    form = reference if select_impl(impl, x) == "reference" else fused
    return form.winograd_conv(x, weight, bias, padding, edges)


class _WinogradConv(InForm, _ConvNd):
    _dimensions: int
    around: str | None = None
    """`reflect` or `replicate`, where another layer padded by one and the convolution pads nothing."""
    __constants__ = [*_ConvNd.__constants__, "around"]  # noqa: RUF012

    forward = torchscript.forward

    def _torchs_own(self, input: Tensor) -> Tensor:
        padded = input if self.around is None else F.pad(input, [1, 1, 1, 1], self.around)
        return self._conv_forward(padded, self.weight, self.bias)

    @leaf
    def _recorded(self, input: Tensor) -> Tensor:
        """(N, in_channels, *size) or (in_channels, *size) -> the same with out_channels and their size."""
        others = torch.compiler.is_compiling() or transformed() or input.dim() != 2 + self._dimensions
        if not (others or input.numel() * self.out_channels < fused.MANY or why_no_winograd_conv(self) is not None):
            padding, edges = (_padding(self), self.padding_mode) if self.around is None else ((1, 1), self.around)
            edges = edges if any(padding) else "zeros"
            weight = self.out_channels, self.in_channels, *self.kernel_size
            if fused.may_pay(input, weight, padding, edges):
                return _convolved(input, self.weight, self.bias, padding, self.impl, edges)
        return self._torchs_own(input)


@under_the_name_of(nn.Conv2d)
class WinogradConv2d(_WinogradConv, nn.Conv2d):
    """`torch.nn.Conv2d`, 3x3 convolutions of stride 1 by `winograd_conv`, others by torch's own.

    >>> WinogradConv2d(32, 48, 3, padding=1)(torch.randn(2, 32, 16, 16)).shape
    torch.Size([2, 48, 16, 16])

    Arguments, parameters and state dict are torch's.
    """

    _dimensions = 2


@under_the_name_of(nn.Conv3d)
class WinogradConv3d(_WinogradConv, nn.Conv3d):
    """`torch.nn.Conv3d`, 3x3x3 and 1x3x3 convolutions of stride 1 by `winograd_conv`, others by torch's own.

    >>> WinogradConv3d(16, 32, 3, padding=1)(torch.randn(1, 16, 8, 16, 16)).shape
    torch.Size([1, 32, 8, 16, 16])

    Arguments, parameters and state dict are torch's.
    """

    _dimensions = 3


def why_no_winograd_conv(conv: _ConvNd) -> str | None:
    """Why a convolution cannot be Winograd's, whatever the input; None if it can."""
    if "_conv_forward" in vars(conv):
        return "was changed"
    steps = conv.stride, conv.dilation
    if conv.kernel_size not in fused.TAPS or conv.groups > 1 or any(by != (1,) * len(conv.kernel_size) for by in steps):
        return "not 3x3, 3x3x3 or 1x3x3 with stride 1, without dilation and groups"
    if isinstance(conv.padding, int) or not fused.pads(_padding(conv), conv.kernel_size):
        return "padded by more than 2 on a side, or not alike in height and width, or in depth more than the taps reach"
    if conv.in_channels % 16 or conv.out_channels % 16:
        return "channels, in and out, are not multiples of 16"
    return None


def _padding(conv: _ConvNd) -> reference.Padding:
    if isinstance(conv.padding, str):
        return tuple(k // 2 if conv.padding == "same" else 0 for k in conv.kernel_size)
    return conv.padding
