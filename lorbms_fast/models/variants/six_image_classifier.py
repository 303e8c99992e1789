"""The classifier sees I_mix, I_ref and the four candidates in one run and names the replaced quadrants."""

from dataclasses import replace

from lorbms_fast.config import TrainConfig
from lorbms_fast.models.joint_classifier import JointClassifier


class Classifier(JointClassifier):
    """AlexNet on six images, 18 channels."""

    images = 6


def settings(config: TrainConfig) -> TrainConfig:
    """Another classifier."""
    return replace(config, model=replace(config.model, classifier="six-image-classifier"))
