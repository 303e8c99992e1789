"""Nine tiles, a random mask, and a batch whose first half is mixed with its second: an early form of the method.

Images of 96 px have a code of 3 x 3 chunks, one a tile. The classifier sees the mixed image and both it was made of.
"""

from dataclasses import replace

from lorbms_fast.config import TrainConfig
from lorbms_fast.models.joint_classifier import JointClassifier


class Classifier(JointClassifier):
    """AlexNet on three images, 9 channels: mixed image, reference and the other one."""

    images = 3


def settings(config: TrainConfig) -> TrainConfig:
    """Larger images, nine tiles, another classifier, halves of the batch."""
    return replace(
        config,
        model=replace(config.model, image_size=96, tiles=9, classifier="nine-tiles"),
        mixing=replace(config.mixing, candidates="halves"),
    )
