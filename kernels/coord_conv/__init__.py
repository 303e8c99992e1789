"""CoordConv (Liu et al., 2018): convolution that knows where it is.

Its definition is its fastest form: convolving the constant coordinates once, and adding the result to every sample,
saves two input channels' arithmetic and costs a pass over all maps (bench/RESULTS.md).
"""

from torch import Tensor, nn

from lorbms_fast.kernels.coord_conv.definition import coord_conv2d

__all__ = ["CoordConv2d", "coord_conv2d"]


class CoordConv2d(nn.Module):
    """A CoordConv with its parameters; the weight has two more input channels than x.

    Args:
        in_channels: maps of the input, without coordinates.
        out_channels: maps it makes.
        kernel_size: odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels + 2, out_channels, kernel_size)
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H, W)."""
        return coord_conv2d(x, self.weight, self.bias)
