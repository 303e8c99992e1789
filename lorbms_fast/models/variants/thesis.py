"""The system of the thesis: nothing is different."""

from lorbms_fast.config import TrainConfig


def settings(config: TrainConfig) -> TrainConfig:
    """The settings as they are."""
    return config
