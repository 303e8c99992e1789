"""Models written from their papers, as their authors' code has them: layers of torch's alone."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations


def cyclegan_generator(width: int = 64, blocks: int = 9) -> nn.Module:
    """CycleGAN's ResNet generator (Zhu et al., 2017): c7s1-64, d128, d256, nine R256, u128, u64, c7s1-3."""

    def normalized(conv: nn.Module) -> list[nn.Module]:
        return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU(True)]  # type: ignore[arg-type]

    layers = [nn.ReflectionPad2d(3), *normalized(nn.Conv2d(3, width, 7))]
    for C in (width, 2 * width):
        layers += normalized(nn.Conv2d(C, 2 * C, 3, stride=2, padding=1))
    layers += [ResidualBlock(4 * width) for _ in range(blocks)]
    for C in (4 * width, 2 * width):
        layers += normalized(nn.ConvTranspose2d(C, C // 2, 3, stride=2, padding=1, output_padding=1))
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norms around which the input goes: CycleGAN's R256."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(C, C, 3), nn.InstanceNorm2d(C), nn.ReLU(True),
            nn.ReflectionPad2d(1), nn.Conv2d(C, C, 3), nn.InstanceNorm2d(C),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        return x + self.conv_block(x)


class Pix2Pix(nn.Module):
    """A U-Net that halves `depth` times, and the PatchGAN that judges its pictures (Isola et al., 2017)."""

    def __init__(self, width: int = 64, depth: int = 8, dropout: float = 0.5) -> None:
        super().__init__()
        block = UNetLevel(8 * width, 8 * width, 8 * width, None, "innermost", 0.0)
        for _ in range(depth - 5):
            block = UNetLevel(8 * width, 8 * width, 8 * width, block, "between", dropout)
        for times in (4, 2, 1):
            block = UNetLevel(times * width, 2 * times * width, times * width, block, "between", 0.0)
        self.generator = UNetLevel(3, width, 3, block, "outermost", 0.0)
        self.discriminator = patch_gan(6, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (N, 3, H, W) -> pictures; and a judgement of each patch of the pair."""
        y = self.generator(x)
        return y, self.discriminator(torch.cat([x, y], 1))


class UNetLevel(nn.Module):
    """A level of pix2pix's U-Net, at one of three places: halves, does what is below, doubles, and appends its input.

    It reads C maps, has `inner` below, and appends `out`, or gives them alone if it is the outermost.
    """

    def __init__(self, C: int, inner: int, out: int, below: nn.Module | None, place: str, dropout: float) -> None:
        super().__init__()
        self.outermost = place == "outermost"
        down = nn.Conv2d(C, inner, 4, stride=2, padding=1)
        up = nn.ConvTranspose2d(inner if below is None else 2 * inner, out, 4, stride=2, padding=1)
        layers: list[nn.Module] = [down] if self.outermost else [nn.LeakyReLU(0.2, True), down]
        if place == "between":
            layers.append(nn.InstanceNorm2d(inner))
        layers += [nn.ReLU(True), up] if below is None else [below, nn.ReLU(True), up]
        layers.append(nn.Tanh() if self.outermost else nn.InstanceNorm2d(out))
        self.model = nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, out, H, W), behind x unless it is the outermost."""
        # The first activation is in place, in the authors' code too: what is appended is activated.
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


def patch_gan(channels: int = 3, width: int = 64) -> nn.Module:
    """The 70x70 PatchGAN with a spectral norm on each convolution."""

    def conv(C: int, out: int, stride: int) -> nn.Module:
        return parametrizations.spectral_norm(nn.Conv2d(C, out, 4, stride=stride, padding=1))

    layers = [conv(channels, width, 2), nn.LeakyReLU(0.2, True)]
    for times, stride in ((1, 2), (2, 2), (4, 1)):
        layers += [conv(times * width, 2 * times * width, stride), nn.InstanceNorm2d(2 * times * width)]
        layers.append(nn.LeakyReLU(0.2, True))
    return nn.Sequential(*layers, conv(8 * width, 1, 1))


class TransformerNet(nn.Module):
    """The style network of fast-neural-style (Johnson et al., 2016), with instance norms (Ulyanov et al., 2016)."""

    def __init__(self, width: int = 32, blocks: int = 5) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1, self.in1 = _padded(3, width, 9), nn.InstanceNorm2d(width, affine=True)
        self.conv2, self.in2 = _padded(width, 2 * width, 3, 2), nn.InstanceNorm2d(2 * width, affine=True)
        self.conv3, self.in3 = _padded(2 * width, 4 * width, 3, 2), nn.InstanceNorm2d(4 * width, affine=True)
        self.residual = nn.Sequential(*(StyleBlock(4 * width) for _ in range(blocks)))
        self.deconv1, self.in4 = _enlarging(4 * width, 2 * width), nn.InstanceNorm2d(2 * width, affine=True)
        self.deconv2, self.in5 = _enlarging(2 * width, width), nn.InstanceNorm2d(width, affine=True)
        self.deconv3 = _padded(width, 3, 9)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) -> pictures."""
        y = self.relu(self.in1(self.conv1(x)))
        y = self.relu(self.in2(self.conv2(y)))
        y = self.relu(self.in3(self.conv3(y)))
        y = self.residual(y)
        y = self.relu(self.in4(self.deconv1(y)))
        y = self.relu(self.in5(self.deconv2(y)))
        return self.deconv3(y)


class StyleBlock(nn.Module):
    """A residual block of the style network."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.conv1, self.in1 = _padded(C, C, 3), nn.InstanceNorm2d(C, affine=True)
        self.conv2, self.in2 = _padded(C, C, 3), nn.InstanceNorm2d(C, affine=True)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        y = self.relu(self.in1(self.conv1(x)))
        return self.in2(self.conv2(y)) + x


def _padded(C: int, out: int, size: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.ReflectionPad2d(size // 2), nn.Conv2d(C, out, size, stride))


def _enlarging(C: int, out: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2), *_padded(C, out, 3).children())


class FCDenseNet(nn.Module):
    """Fully convolutional DenseNet (Jégou et al., 2017); the default is FC-DenseNet103.

    Dense blocks have so many layers on the way down, and in reverse on the way up; the block between is the bottleneck.
    """

    def __init__(
        self,
        classes: int = 11,
        growth: int = 16,
        layers: tuple[int, ...] = (4, 5, 7, 10, 12),
        bottleneck: int = 15,
        stem: int = 48,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, stem, 3, padding=1)
        C = stem
        self.down, self.transitions_down = nn.ModuleList(), nn.ModuleList()
        skips = []
        for count in layers:
            self.down.append(FCDenseBlock(C, growth, count, dropout))
            C += count * growth
            skips.append(C)
            self.transitions_down.append(
                nn.Sequential(
                    nn.BatchNorm2d(C), nn.ReLU(True), nn.Conv2d(C, C, 1), nn.Dropout2d(dropout), nn.MaxPool2d(2)
                )
            )
        self.bottleneck = FCDenseBlock(C, growth, bottleneck, dropout)
        self.up, self.transitions_up = nn.ModuleList(), nn.ModuleList()
        for before, count in pairwise([bottleneck, *reversed(layers)]):
            new = before * growth
            self.transitions_up.append(nn.ConvTranspose2d(new, new, 3, stride=2, padding=1, output_padding=1))
            C = new + skips.pop()
            self.up.append(FCDenseBlock(C, growth, count, dropout))
        self.classify = nn.Conv2d(C + layers[0] * growth, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) -> logits (N, classes, H, W)."""
        x, skips = self.stem(x), []
        for block, transition in zip(self.down, self.transitions_down, strict=True):
            x = torch.cat([x, block(x)], 1)
            skips.append(x)
            x = transition(x)
        new = self.bottleneck(x)
        for block, transition in zip(self.up, self.transitions_up, strict=True):
            x = torch.cat([transition(new), skips.pop()], 1)
            new = block(x)
        return self.classify(torch.cat([x, new], 1))


class FCDenseBlock(nn.Module):
    """A dense block that gives its new maps alone."""

    def __init__(self, C: int, growth: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(C + i * growth), nn.ReLU(True), nn.Conv2d(C + i * growth, growth, 3, padding=1),
                nn.Dropout2d(dropout),
            )
            for i in range(layers)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, layers * growth, H, W)."""
        new = []
        for layer in self.layers:
            new.append(layer(x))
            x = torch.cat([x, new[-1]], 1)
        return torch.cat(new, 1)
