"""AlexNet with batch norm after each convolution, for the rows of Table 4.3 that are trained on whole pictures."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

WIDTHS = (96, 256, 384, 384, 256)
HIDDEN = 4096


class AlexNetConvs(nn.Module):
    """conv1 to conv5, each followed by ReLU and batch norm, as the thesis's classifier has them.

    conv1 is 11x11 with stride 4 and no padding, so that 96x96 pixels give 4x4x256 maps at conv5 (a linear classifier
    of 40,970 parameters for ten classes) and 224x224 give 12x12x256.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = widths
        self.conv1 = nn.Conv2d(3, c1, 11, stride=4)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=2)
        for i, width in enumerate(widths, start=1):
            self.add_module(f"bn{i}", nn.BatchNorm2d(width, momentum=0.01))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [-1, 1] -> maps of conv5 before its pooling, (N, 256, 4, 4) for S = 96."""
        x = F.max_pool2d(self._layer(1, images), 3, stride=2)
        x = F.max_pool2d(self._layer(2, x), 3, stride=2)
        for i in (3, 4, 5):
            x = self._layer(i, x)
        return x

    def _layer(self, i: int, x: Tensor) -> Tensor:
        normalised: Tensor = self.get_submodule(f"bn{i}")(torch.relu(self.get_submodule(f"conv{i}")(x)))
        return normalised


class AlexNet(nn.Module):
    """AlexNet for whole pictures.

    Args:
        classes: logits to give.
        side: of the images in pixels.
        seed: of the initial values.
        widths: maps of the five convolutions.
        hidden: units of the two hidden layers.
    """

    def __init__(
        self, classes: int, side: int, seed: int = 0, widths: tuple[int, ...] = WIDTHS, hidden: int = HIDDEN
    ) -> None:
        super().__init__()
        self.convs = AlexNetConvs(widths)
        positions = _pooled(_pooled(_pooled((side - 11) // 4 + 1))) ** 2
        self.fc6 = nn.Linear(positions * widths[-1], hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, classes)
        generator = Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.02, generator=generator)
                nn.init.constant_(layer.bias, 0.02)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [-1, 1] -> (N, classes) logits."""
        x = F.max_pool2d(self.convs(images), 3, stride=2).flatten(1)
        logits: Tensor = self.fc8(torch.relu(self.fc7(torch.relu(self.fc6(x)))))
        return logits


def _pooled(side: int) -> int:
    return (side - 3) // 2 + 1
