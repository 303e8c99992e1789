"""A 3x3 convolution with a quarter of the multiplications, on the CPU: Winograd's algorithm."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common.dispatch import Impl, checked_impl, select_impl, transformed
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels.winograd_conv import fused, reference

MANY = 1 << 21
"""Products of a position's channels in and out, over a batch, from which on to ask takes no time beside them."""
_PADDING: dict[Any, int] = {"valid": 0, "same": 1, (0, 0): 0, (1, 1): 1, (2, 2): 2}


def winograd_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0, impl: Impl | None = None
) -> Tensor:
    """Convolve with 3x3 taps, `F.conv2d(x, weight, bias, padding=padding)`, where it pays by Winograd's algorithm.

    >>> x, weight = torch.randn(2, 32, 16, 16), torch.randn(48, 32, 3, 3)
    >>> plain = F.conv2d(x, weight, padding=1)
    >>> torch.testing.assert_close(winograd_conv2d(x, weight, padding=1), plain, rtol=1e-4, atol=1e-3)

    It pays for float32 and bfloat16 (autocast's, too) with numbers of channels that are multiples of 16 and maps that
    are large beside these, on a CPU with AVX2 or AVX-512, a C++ compiler and, for bfloat16, without AMX. Anything else
    is torch's own. In float32 results are off by two to five times as much as torch's, about a millionth of the largest
    one; in bfloat16 by no more than its rounding. An infinite value makes NaN of the tiles of 4x4 or 8x8 results that
    it is in. For the backward it keeps x and the weight, as torch does (Lavin and Gray, 2015, arXiv 1509.09308).

    Args:
        x: (N, C, H, W).
        weight: (O, C, 3, 3).
        bias: (O,) or None.
        padding: zeros on each side.
        impl: form to run, `reference` or `fused`; None takes the one in force. There is no Triton kernel.

    Returns:
        (N, O, H + 2 padding - 2, W + 2 padding - 2), in the layout that torch's own has.
    """
    form = reference if select_impl(impl, x) == "reference" else fused
    return form.winograd_conv2d(x, weight, bias, padding)


class WinogradConv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, 3x3 convolutions of stride 1 by `winograd_conv2d`, others by torch's own.

    >>> WinogradConv2d(32, 48, 3, padding=1)(torch.randn(2, 32, 16, 16)).shape
    torch.Size([2, 48, 16, 16])

    Arguments, parameters and state dict are torch's.
    """

    impl: Impl | None = None

    def __init__(self, *args: Any, impl: Impl | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.impl = checked_impl(impl)

    @leaf
    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) or (in_channels, H, W) -> the same with out_channels and their size."""
        others = torch.compiler.is_compiling() or transformed() or input.dim() != 4
        if others or input.numel() * self.out_channels < MANY or why_no_winograd_conv2d(self) is not None:
            return super().forward(input)
        padding = _PADDING[self.padding]
        if padding and self.padding_mode != "zeros":
            input, padding = F.pad(input, [padding] * 4, self.padding_mode), 0
        return winograd_conv2d(input, self.weight, self.bias, padding, self.impl)


def why_no_winograd_conv2d(conv: nn.Conv2d) -> str | None:
    """Why a convolution cannot be Winograd's, whatever the input; None if it can."""
    if (conv.kernel_size, conv.stride, conv.dilation, conv.groups) != ((3, 3), (1, 1), (1, 1), 1):
        return "not 3x3 with stride 1, without dilation and groups"
    if conv.padding not in _PADDING:
        return "not padded by 0, 1 or 2 on all sides"
    if conv.in_channels % 16 or conv.out_channels % 16:
        return "channels, in and out, are not multiples of 16"
    return None
