"""CoordConv (Liu et al., 2018): convolution that knows where it is.

Its definition is also what runs: to convolve the constant coordinates once, and add the result to every sample, would
save two input channels' arithmetic and cost a pass over all maps (bench/RESULTS.md).
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.kernels._common.autocast import compute_dtype
from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, checked_impl, select_impl
from lorbms_fast.kernels._common.fx_leaf import leaf
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check_taps, misfit, unless_traced
from lorbms_fast.kernels._common.unbatched import takes_one
from lorbms_fast.kernels.coord_conv import reference

if HAS_TRITON:
    from lorbms_fast.kernels.coord_conv.triton import ops as triton_ops

__all__ = ["CoordConv2d", "coord_conv2d"]


@operation()
def coord_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, impl: Impl | None = None) -> Tensor:
    """Convolve x with its coordinates appended, padded to keep height and width.

    >>> x = torch.randn(2, 3, 8, 8)
    >>> coord_conv2d(x, torch.randn(4, 3 + 2, 3, 3)).shape
    torch.Size([2, 4, 8, 8])

    x is (N, C, H, W), the weight (O, C + 2, k, k), k odd, bias (O,) or None; the result (N, O, H, W). `impl` names the
    form to run, None the one in force: Triton appends, torch's own convolution convolves. Raises ValueError if x or the
    weight has another shape, and RuntimeError, torch's own, if a dtype, or bias, does not fit.
    """
    if x.dim() != 4:
        raise misfit("x", x, "(N, C, H, W)")
    form, k = select_impl(impl, x), weight.shape[-1]
    check_taps(weight, x.shape[1] + 2, k, k)
    _refuse_even(k)
    if form == "triton":
        appended = triton_ops.append_coordinates(x, compute_dtype(x))
        return F.conv2d(appended, weight, bias, padding=k // 2)
    return reference.coord_conv2d(x, weight, bias)


@unless_traced
def _refuse_even(kernel_size: int) -> None:
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size {kernel_size} is even: height and width could not stay as they are")


class CoordConv2d(nn.Conv2d):
    """A CoordConv with its parameters; the weight has two more input channels than x.

    >>> CoordConv2d(3, 4)(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 4, 8, 8])

    `in_channels` are without coordinates, `kernel_size` is odd; `impl` names the form to run, None the one in force.
    Raises ValueError for an even kernel, or if there is no such form.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, impl: Impl | None = None) -> None:
        _refuse_even(kernel_size)
        super().__init__(in_channels + 2, out_channels, kernel_size, padding=kernel_size // 2)
        self.impl = checked_impl(impl)

    def extra_repr(self) -> str:
        """Arguments as they were given: channels without coordinates."""
        return f"{self.in_channels - 2}, {self.out_channels}, kernel_size={self.kernel_size[0]}"

    @leaf
    @takes_one
    def forward(self, input: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W); or both without N."""
        return coord_conv2d(input, self.weight, self.bias, self.impl)
