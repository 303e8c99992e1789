"""Hinge losses for discriminator and generator (Zhang et al., 2019)."""

from dataclasses import replace

from lorbms_fast.config import TrainConfig


def settings(config: TrainConfig) -> TrainConfig:
    """Another pair of adversarial losses."""
    return replace(config, loss=replace(config.loss, gan="hinge"))
