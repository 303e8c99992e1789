"""Networks as others write them, from their papers, small: for the tests of accelerate and its neighbours."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Of CycleGAN's generator (Zhu et al., 2017)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


def resnet_generator(channels: int = 8, blocks: int = 2) -> nn.Sequential:
    """CycleGAN's generator, with resize convolutions on its way up (Odena et al., 2016)."""
    layers: list[nn.Module] = [
        nn.ReflectionPad2d(3),
        nn.Conv2d(3, channels, 7),
        nn.InstanceNorm2d(channels),
        nn.ReLU(True),
    ]
    for width in (channels, 2 * channels):
        layers += [nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width), nn.ReLU(True)]
    layers += [ResidualBlock(4 * channels) for _ in range(blocks)]
    for width in (4 * channels, 2 * channels):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(width, width // 2, 3, padding=1)]
        layers += [nn.InstanceNorm2d(width // 2), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(channels, 3, 7), nn.Tanh())


class ConvNormAct(nn.Module):
    """As nnU-Net's ConvDropoutNormReLU: layers under names of their own, and all together in a sequence."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv3d(before, after, 3, stride, 1)
        self.norm = nn.InstanceNorm3d(after, affine=True)
        self.nonlin = nn.LeakyReLU(inplace=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, self.nonlin)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class UNet(nn.Module):
    """A U-Net of volumes (Ronneberger et al., 2015; Isensee et al., 2021)."""

    def __init__(self, channels: int = 4, depth: int = 2) -> None:
        super().__init__()
        widths = [channels << level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            ConvNormAct(a, b, 1 if a == 1 else 2) for a, b in zip([1, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(nn.ConvTranspose3d(2 * w, w, 2, 2) for w in reversed(widths[:-1]))
        self.stages = nn.ModuleList(ConvNormAct(2 * w, w) for w in reversed(widths[:-1]))
        self.head = nn.Conv3d(channels, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        for i in range(len(self.up)):
            x = self.stages[i](torch.cat((self.up[i](x), skips[-(i + 2)]), 1))
        return self.head(x)


class PoolingUNet(nn.Module):
    """A U-Net of images with pools, one activation for all layers, and sizes that need not divide by two."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, channels, 3, padding=1), nn.InstanceNorm2d(channels, affine=True)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1), nn.InstanceNorm2d(channels, affine=True)
        self.conv3 = nn.Conv2d(2 * channels, 2, 1)
        self.act, self.pool = nn.SiLU(), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        first = self.act(self.norm1(self.conv1(x)))
        below = self.act(self.norm2(self.conv2(self.pool(first))))
        return self.conv3(torch.cat([first, F.interpolate(below, size=first.shape[2:])], 1))


def patch_discriminator(normalize, channels: int = 4) -> nn.Sequential:
    """pix2pix's PatchGAN (Isola et al., 2017) with spectral norms (Miyato et al., 2018)."""
    layers: list[nn.Module] = []
    for before, after, stride in ((3, channels, 2), (channels, 2 * channels, 2), (2 * channels, 4 * channels, 1)):
        layers += [normalize(nn.Conv2d(before, after, 4, stride, 1)), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, normalize(nn.Conv2d(4 * channels, 1, 4, 1, 1)))


class BasicBlock(nn.Module):
    """ResNet's (He et al., 2016): one activation behind a norm, and one behind the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


def resnet(channels: int = 4) -> nn.Sequential:
    """Batch norms in front of several activations, with a dropout between, and alone."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, bias=False), nn.BatchNorm2d(channels), nn.ReLU(True), BasicBlock(channels),
        nn.BatchNorm2d(channels, momentum=None), nn.Dropout(0.0), nn.LeakyReLU(0.2, True), nn.Conv2d(channels, 2, 1),
        nn.BatchNorm2d(2, affine=False), nn.SiLU(), nn.BatchNorm2d(2),
    )  # fmt: skip
