"""CoordConv (Liu et al., 2018): convolution that knows where it is."""

from torch import Tensor, nn

from lorbms_fast.kernels.coord_conv import definition, fused
from lorbms_fast.kernels.dispatch import Impl, resolve


def coord_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, impl: Impl | None = None) -> Tensor:
    """Append x and y coordinates in [-1, 1] as channels and convolve, padded to keep height and width.

    Args:
        x: (N, C, H, W).
        weight: (O, C + 2, k, k), k odd.
        bias: (O,) or None.
        impl: form to run; None takes the one in force.

    Returns:
        (N, O, H, W).
    """
    # The fused form saves arithmetic for two more launches: a bargain on a CPU only.
    return (fused if resolve(impl, x) == "torch" else definition).coord_conv2d(x, weight, bias)


class CoordConv2d(nn.Module):
    """A CoordConv with its parameters; the weight has two more input channels than x."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, impl: Impl | None = None) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels + 2, out_channels, kernel_size)
        self.weight, self.bias, self.impl = conv.weight, conv.bias, impl

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        return coord_conv2d(x, self.weight, self.bias, self.impl)
