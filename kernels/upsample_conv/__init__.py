"""A convolution behind nearest-neighbour enlarging by two, without the enlarged map."""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common import torchscript
from lorbms_fast.kernels._common.dispatch import Impl, select_impl
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.in_form import InForm, under_the_name_of
from lorbms_fast.kernels._common.shapes import check_taps, misfit
from lorbms_fast.kernels.upsample_conv import fused, reference

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def upsample_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, padding_mode: str = "zeros", impl: Impl | None = None
) -> Tensor:
    """Enlarge by two, each value becoming four, then convolve with 3x3 taps, padded by one.

    >>> x, weight = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    >>> plain = F.conv2d(F.interpolate(x, scale_factor=2), weight, padding=1)
    >>> torch.testing.assert_close(upsample_conv(x, weight), plain, rtol=1e-4, atol=1e-4)

    x is (N, C, H, W), the weight (O, C, 3, 3), bias (O,) or None; the result (N, O, 2 H, 2 W). `padding_mode` is
    `zeros`, `reflect`, `replicate` or `circular`. `impl` names the form to run, None the one in force; there is no
    Triton kernel: `triton` is `fused`. x and parameters are of one floating-point dtype, as for `F.conv2d`, which
    autocast sees to; the result is of that. Raises ValueError if x or the weight has another shape, or there is no such
    form or padding, and RuntimeError, torch's own, if a dtype, or bias, does not fit.
    """
    if padding_mode not in get_args(PaddingMode):
        raise ValueError(f"padding_mode '{padding_mode}': choose one of {', '.join(get_args(PaddingMode))}")
    if x.dim() != 4:
        raise misfit("x", x, "(N, C, H, W)")
    form = select_impl(impl, x)
    check_taps(weight, x.shape[1], 3, 3)
    return (reference if form == "reference" else fused).upsample_conv(x, weight, bias, padding_mode)


@under_the_name_of(nn.Conv2d)
class UpsampleConv2d(InForm, nn.Conv2d):
    """`nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(in_channels, out_channels, 3, padding=1))` in one.

    >>> UpsampleConv2d(3, 4)(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 4, 16, 16])

    Arguments, parameters and state dict are the convolution's; `impl` names the form to run, None the one in force.
    """

    around: str | None = None
    """`reflect` or `replicate`, where another layer padded so what was enlarged and the convolution pads nothing."""
    __constants__ = [*nn.Conv2d.__constants__, "around"]  # noqa: RUF012
    forward = torchscript.forward

    def __init__(
        self, in_channels: int, out_channels: int, bias: bool = True, padding_mode: PaddingMode = "zeros",
        device: Any = None, dtype: torch.dtype | None = None, impl: Impl | None = None,
    ) -> None:  # fmt: skip
        options: dict[str, Any] = {"padding_mode": padding_mode, "device": device, "dtype": dtype, "impl": impl}
        super().__init__(in_channels, out_channels, 3, padding=1, bias=bias, **options)

    @leaf
    def _recorded(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, 2 H, 2 W); of fewer dimensions, what torch's two make of it."""
        if input.dim() != 4:
            return self._torchs_own(input)
        return upsample_conv(input, self.weight, self.bias, self.around or self.padding_mode, self.impl)

    def _torchs_own(self, input: Tensor) -> Tensor:
        enlarged = F.interpolate(input, scale_factor=2.0)
        padded = enlarged if self.around is None else F.pad(enlarged, [1, 1, 1, 1], self.around)
        return self._conv_forward(padded, self.weight, self.bias)
