"""An encoder that sees no more of the image at once than the discriminator does."""

from torch import Tensor, nn

from lorbms_fast.config import INSTANCE_NORM_EPS, ModelConfig
from lorbms_fast.kernels import CoordConv2d, instance_norm_relu

BLOCKS = 3


class Encoder(nn.Module):
    """Receptive field 46 of what the first convolution makes, as the thesis counts; 48 of the image's pixels.

    A 3x3 convolution with coordinates; three blocks of two 1x1 and one 3x3 convolution in a row, without dense
    connections; behind each block, and twice more at the end, a transition down of a 1x1 and a 2x2 convolution of
    stride 2. Instance norm and ReLU come before every convolution but the first. With the thesis's sizes its maps are
    76, then 152, 200 and 248 in the blocks, 344 in the fourth transition and 192 in the last.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        stem = -(-19 * config.stem // 12)
        more = 3 * config.growth
        width = 2 * stem
        self.first = CoordConv2d(3, stem, kernel_size=3)
        layers: list[nn.Conv2d] = []
        channels = stem
        for _ in range(BLOCKS):
            layers += [nn.Conv2d(channels, width, 1), nn.Conv2d(width, width, 1)]
            layers += [nn.Conv2d(width, width, 3, padding=1), *_down(width, width + more)]
            channels = width = width + more
        layers += [*_down(width, width + more), *_down(width + more, config.chunk)]
        self.layers = nn.ModuleList(layers)

    def forward(self, images: Tensor) -> Tensor:
        """Encode (N, 3, S, S) images in [-1, 1] as (N, (S/32)^2, chunk); for S = 64 chunk i is quadrant i."""
        x = self.first(images)
        for layer in self.layers:
            x = layer(instance_norm_relu(x, INSTANCE_NORM_EPS))
        return x.flatten(2).transpose(1, 2)


def _down(in_channels: int, out_channels: int) -> list[nn.Conv2d]:
    return [nn.Conv2d(in_channels, out_channels, 1), nn.Conv2d(out_channels, out_channels, 2, stride=2)]
