"""The classifier: AlexNet with batch norm, reading a mixed image and all of its candidates."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor

from lorbms_fast import reference
from lorbms_fast.config import ModelConfig
from lorbms_fast.kernels import GroupedBatchNorm2d
from lorbms_fast.kernels.grouped_batch_norm import Statistics, follow
from lorbms_fast.kernels.lorbms import Linear, PairedConv2d


class Classifier(reference.Classifier):
    """Tells at which quadrant, if any, a candidate's chunk went into the mixed image.

    All candidates in one run, each with its own batch statistics. The first convolution is linear in the image pair,
    so the mixed image's half of it is computed once.
    """

    conv1: PairedConv2d

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config, partial(GroupedBatchNorm2d, relu_first=True))
        self.conv1 = PairedConv2d(3 + 3, config.classifier_widths[0], 8, stride=2)
        self.fc6, self.fc7 = (Linear(fc.in_features, fc.out_features) for fc in (self.fc6, self.fc7))

    def forward(self, I_mix: Tensor, I_q: Tensor) -> Tensor:
        """Compute (G, N, 4) logits, one a quadrant, from (N, 3, S, S) and (G, N, 3, S, S) images."""
        found: list[Statistics] = []
        norm = {"groups": len(I_q), "found": found}
        x = F.max_pool2d(self.bn1(self.conv1(I_mix, I_q.flatten(0, 1)), **norm), 3, stride=2)
        x = F.max_pool2d(self.bn2(self.conv2(x), **norm), 3, stride=2)
        x = self.bn3(self.conv3(x), **norm)
        x = self.bn4(self.conv4(x), **norm)
        logits = self.logits(self.bn5(self.conv5(x), **norm))
        follow(found)
        return logits.unflatten(0, (len(I_q), -1))
