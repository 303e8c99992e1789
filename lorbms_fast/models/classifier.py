"""The classifier: AlexNet with batch norm, reading a mixed image and all of its candidates."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import GroupedBatchNorm2d
from lorbms_fast.kernels.grouped_batch_norm import Statistics, follow
from lorbms_fast.kernels.lorbms import PairedConv2d


class Classifier(nn.Module):
    """Tells at which quadrant, if any, a candidate's chunk went into the mixed image.

    All candidates in one run, each with its own batch statistics. The first convolution is linear in the image pair,
    so the mixed image's half of it is computed once.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = config.classifier_widths
        norm = partial(GroupedBatchNorm2d, relu_first=True)
        self.conv1, self.bn1 = PairedConv2d(3 + 3, c1, 8, stride=2), norm(c1)
        self.conv2, self.bn2 = nn.Conv2d(c1, c2, 5, padding=2, groups=2), norm(c2)
        self.conv3, self.bn3 = nn.Conv2d(c2, c3, 3, padding=1), norm(c3)
        self.conv4, self.bn4 = nn.Conv2d(c3, c4, 3, padding=1, groups=2), norm(c4)
        self.conv5, self.bn5 = nn.Conv2d(c4, c5, 3, padding=1, groups=2), norm(c5)
        self.fc6 = nn.Linear(config.classifier_positions * c5, config.classifier_hidden)
        self.fc7 = nn.Linear(config.classifier_hidden, config.classifier_hidden)
        self.fc8 = nn.Linear(config.classifier_hidden, config.tiles)

    def forward(self, I_mix: Tensor, I_q: Tensor) -> Tensor:
        """Compute (G, N, 4) logits, one a quadrant, from (N, 3, S, S) and (G, N, 3, S, S) images."""
        found: list[Statistics] = []
        norm = {"groups": len(I_q), "found": found}
        x = F.max_pool2d(self.bn1(self.conv1(I_mix, I_q.flatten(0, 1)), **norm), 3, stride=2)
        x = F.max_pool2d(self.bn2(self.conv2(x), **norm), 3, stride=2)
        x = self.bn3(self.conv3(x), **norm)
        x = self.bn4(self.conv4(x), **norm)
        x = F.max_pool2d(self.bn5(self.conv5(x), **norm), 2, stride=1)
        x = x.permute(0, 2, 3, 1).flatten(1)  # the author's fully connected weights expect H, W, C order
        x = torch.relu(self.fc7(torch.relu(self.fc6(x))))
        logits: Tensor = self.fc8(x)
        follow(found)
        return logits.unflatten(0, (len(I_q), -1))
