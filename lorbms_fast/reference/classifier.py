"""The classifier: AlexNet with batch norm, reading a mixed image and one of its candidates."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.reference.layers import BatchNorm

PAIR = 2
"""Images that the thesis's classifier sees in one run: the mixed one and one of its candidates."""


class Classifier(nn.Module):
    """Tells at which quadrant, if any, a candidate's chunk went into the mixed image."""

    images = PAIR
    """Images it sees in one run; more than a pair are all that the mixed one was made of."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = config.classifier_widths
        self.conv1 = nn.Conv2d(6, c1, 8, stride=2)
        self.bn1 = BatchNorm(c1)
        self.conv2 = nn.Conv2d(c1, c2, 5, padding=2, groups=2)
        self.bn2 = BatchNorm(c2)
        self.conv3 = nn.Conv2d(c2, c3, 3, padding=1)
        self.bn3 = BatchNorm(c3)
        self.conv4 = nn.Conv2d(c3, c4, 3, padding=1, groups=2)
        self.bn4 = BatchNorm(c4)
        self.conv5 = nn.Conv2d(c4, c5, 3, padding=1, groups=2)
        self.bn5 = BatchNorm(c5)
        self.fc6 = nn.Linear(config.classifier_positions * c5, config.classifier_hidden)
        self.fc7 = nn.Linear(config.classifier_hidden, config.classifier_hidden)
        self.fc8 = nn.Linear(config.classifier_hidden, config.tiles)

    def forward(self, I_mix: Tensor, I_q: Tensor) -> Tensor:
        """Two (N, 3, S, S) images -> (N, 4) logits, one a quadrant."""
        x = torch.cat([I_mix, I_q], dim=1)
        x = F.max_pool2d(self.bn1(torch.relu(self.conv1(x))), 3, stride=2)
        x = F.max_pool2d(self.bn2(torch.relu(self.conv2(x))), 3, stride=2)
        x = self.bn3(torch.relu(self.conv3(x)))
        x = self.bn4(torch.relu(self.conv4(x)))
        x = F.max_pool2d(self.bn5(torch.relu(self.conv5(x))), 2, stride=1)
        x = x.permute(0, 2, 3, 1).flatten(1)  # the author's fully connected weights expect H, W, C order
        x = torch.relu(self.fc7(torch.relu(self.fc6(x))))
        logits: Tensor = self.fc8(x)
        return logits
