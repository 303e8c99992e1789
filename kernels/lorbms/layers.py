"""Layers made for the networks of LORBMS: two in one, or a public one with a spectral norm."""

from torch import Tensor, nn

from lorbms_fast.kernels.dense_block import DenseBlock
from lorbms_fast.kernels.lorbms.dense_block_pooled import dense_block_pooled
from lorbms_fast.kernels.lorbms.linear import linear
from lorbms_fast.kernels.lorbms.output_conv import output_conv2d
from lorbms_fast.kernels.lorbms.paired_conv import paired_conv2d
from lorbms_fast.kernels.resize_conv import ResizeConv2d
from lorbms_fast.kernels.spectral_norm import SpectralNorm


class _Pointwise(nn.Module):
    """Weight and bias of a 1x1 convolution, which `passes` does not cast: kernels read them as they are."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Conv2d(in_channels, out_channels, 1).parameters()


class TransitionDown(_Pointwise):
    """A 1x1 convolution of a dense block's activated maps and 2x2 max pooling.

    >>> block, down = DenseBlock(8, num_layers=3, growth_rate=4), TransitionDown(20)
    >>> down(block, torch.randn(2, 8, 10, 10)).shape
    torch.Size([2, 20, 5, 5])

    It runs the block in front of it, so that the two keep one copy of the maps for their backward and not two, and
    makes as many channels as it reads.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)

    def forward(self, block: DenseBlock, x: Tensor) -> Tensor:
        """The block and (N, C, H, W) maps that it reads -> (N, channels, H // 2, W // 2)."""
        packed = block.pack([block])[0] if block.packed is None else block.packed
        return dense_block_pooled(x, packed, self.weight, self.bias, block.activation, block.eps)


class SpectralResizeConv2d(SpectralNorm, ResizeConv2d):
    """A transition up: a resize convolution with a spectrally normalized weight.

    >>> SpectralResizeConv2d(3, 4)(torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 4, 16, 16])
    """


class PairedConv2d(nn.Conv2d):
    """A convolution of an image stacked with each of several others, by `nn.Conv2d`'s arguments up to `stride`.

    >>> I_mix, I_q = torch.randn(2, 3, 8, 8), torch.randn(4 * 2, 3, 8, 8)
    >>> PairedConv2d(3 + 3, 5, kernel_size=3)(I_mix, I_q).shape
    torch.Size([8, 5, 6, 6])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)

    def forward(self, shared: Tensor, each: Tensor) -> Tensor:  # type: ignore[override]
        """(N, C, H, W) and (G * N, D, H, W) -> (G * N, out_channels, H', W')."""
        return paired_conv2d(shared, each, self.weight, self.bias, self.stride[0])


class Linear(nn.Linear):
    """A fully connected layer of few samples.

    >>> Linear(32, 16)(torch.randn(2, 32)).shape
    torch.Size([2, 16])
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, in_features) -> (N, out_features)."""
        return linear(input, self.weight, self.bias)


class SpectralOutputConv2d(SpectralNorm, _Pointwise):
    """Colours of a stack of maps in two parts: a spectrally normalized 1x1 convolution and tanh.

    >>> SpectralOutputConv2d(5 + 3, 3)(torch.randn(2, 5, 8, 8), torch.randn(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    def forward(self, x: Tensor, new_maps: Tensor) -> Tensor:
        """(N, C, H, W) and (N, in_channels - C, H, W) -> (N, out_channels, H, W) in [-1, 1]."""
        return output_conv2d(x, new_maps, self.normalized(), self.bias, self.impl)
