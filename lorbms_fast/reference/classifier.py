"""The classifier: AlexNet with batch norm, reading a mixed image and one of its candidates."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import GroupedBatchNorm2d

PAIR = 2
"""Number of images that the thesis's classifier sees in one run: the mixed one and one of its candidates."""


Norm = TypeVar("Norm", bound=nn.Module)


class AlexNetConvolutions(nn.Module, Generic[Norm]):
    """conv1 to conv5 of AlexNet, each followed by ReLU and batch norm, which `norm` makes for so many maps.

    Three of the convolutions, of the `widths`, work in two halves; `channels`, kernel size and stride are conv1's.
    """

    def __init__(
        self, channels: int, widths: Sequence[int], kernel_size: int, stride: int, norm: Callable[[int], Norm]
    ) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = widths
        self.conv1, self.bn1 = nn.Conv2d(channels, c1, kernel_size, stride=stride), norm(c1)
        self.conv2, self.bn2 = nn.Conv2d(c1, c2, 5, padding=2, groups=2), norm(c2)
        self.conv3, self.bn3 = nn.Conv2d(c2, c3, 3, padding=1), norm(c3)
        self.conv4, self.bn4 = nn.Conv2d(c3, c4, 3, padding=1, groups=2), norm(c4)
        self.conv5, self.bn5 = nn.Conv2d(c4, c5, 3, padding=1, groups=2), norm(c5)

    def conv5_maps(self, images: Tensor) -> Tensor:
        """Compute the maps of conv5 before its pooling from (N, channels, S, S) images."""
        x = F.max_pool2d(self.bn1(torch.relu(self.conv1(images))), 3, stride=2)
        x = F.max_pool2d(self.bn2(torch.relu(self.conv2(x))), 3, stride=2)
        x = self.bn3(torch.relu(self.conv3(x)))
        x = self.bn4(torch.relu(self.conv4(x)))
        return self.bn5(torch.relu(self.conv5(x)))


class Classifier(AlexNetConvolutions[GroupedBatchNorm2d]):
    """Tells at which quadrant, if any, a candidate's chunk went into the mixed image."""

    images = PAIR
    """Number of images it sees in one run; more than a pair are all that the mixed one was made of."""

    def __init__(self, config: ModelConfig, norm: Callable[[int], GroupedBatchNorm2d] = GroupedBatchNorm2d) -> None:
        super().__init__(3 * self.images, config.classifier_widths, kernel_size=8, stride=2, norm=norm)
        self.fc6 = nn.Linear(config.classifier_positions * config.classifier_widths[-1], config.classifier_hidden)
        self.fc7 = nn.Linear(config.classifier_hidden, config.classifier_hidden)
        self.fc8 = nn.Linear(config.classifier_hidden, config.tiles)

    def forward(self, I_mix: Tensor, I_q: Tensor) -> Tensor:
        """Compute (N, 4) logits, one a quadrant, from two (N, 3, S, S) images."""
        return self.logits(self.conv5_maps(torch.cat([I_mix, I_q], dim=1)))

    def logits(self, conv5_maps: Tensor) -> Tensor:
        """Compute (N, 4) logits from the maps of conv5."""
        x = F.max_pool2d(conv5_maps, 2, stride=1)
        x = x.permute(0, 2, 3, 1).flatten(1)  # the author's fully connected weights expect H, W, C order
        x = torch.relu(self.fc7(torch.relu(self.fc6(x))))
        return self.fc8(x)
