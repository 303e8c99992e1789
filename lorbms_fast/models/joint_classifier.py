"""A classifier that sees all images of a mix at once."""

import torch
from torch import Tensor, nn

from lorbms_fast import reference
from lorbms_fast.config import ModelConfig


class JointClassifier(reference.Classifier):
    """The thesis's AlexNet on mixed image, reference and candidates, stacked on channels: which tiles were replaced?"""

    images: int
    """How many images it sees."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.channels = 3 * self.images
        self.conv1 = nn.Conv2d(self.channels, config.classifier_widths[0], 8, stride=2)

    def all_at_once(self, I_mix: Tensor, I_ref: Tensor, I_q: Tensor) -> Tensor:
        """(N, 3, S, S) twice and (candidates, N, 3, S, S) -> (N, tiles) logits, positive for replaced."""
        logits: Tensor = self(torch.cat([I_mix, I_ref], dim=1), I_q.transpose(0, 1).flatten(1, 2))
        return logits
