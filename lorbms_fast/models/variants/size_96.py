"""Images of 96 px."""

from dataclasses import replace

from lorbms_fast.config import TrainConfig


def settings(config: TrainConfig) -> TrainConfig:
    """Larger images; a code has a chunk for every 32 x 32 pixels, and a quadrant the chunks inside it."""
    return replace(config, model=replace(config.model, image_size=96))
