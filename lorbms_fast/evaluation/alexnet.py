"""AlexNet with batch norm after each convolution, for the rows of Table 4.3 that are trained on whole pictures."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lorbms_fast.reference.classifier import AlexNetConvolutions

WIDTHS = (96, 256, 384, 384, 256)
HIDDEN = 4096


class AlexNetConvs(AlexNetConvolutions[nn.BatchNorm2d]):
    """The thesis's classifier up to conv5, but for one picture and with AlexNet's own conv1.

    conv1 is 11x11 with stride 4 and no padding, so that 96x96 pixels give 4x4x256 maps at conv5 (a linear classifier
    of 40,970 parameters for ten classes) and 224x224 give 12x12x256.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__(3, widths, kernel_size=11, stride=4, norm=partial(nn.BatchNorm2d, momentum=0.01))

    def forward(self, images: Tensor) -> Tensor:
        """Compute conv5's maps before its pooling, (N, 256, 4, 4) for S = 96, from (N, 3, S, S) in [-1, 1]."""
        return self.conv5_maps(images)


class AlexNet(nn.Module):
    """AlexNet for whole pictures of a side in pixels, with five convolutions' widths and two hidden layers."""

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
        """Compute (N, classes) logits from (N, 3, S, S) in [-1, 1]."""
        x = F.max_pool2d(self.convs(images), 3, stride=2).flatten(1)
        return self.fc8(torch.relu(self.fc7(torch.relu(self.fc6(x)))))


def _pooled(side: int) -> int:
    return (side - 3) // 2 + 1
