"""Self-attention in decoder and discriminator."""

from dataclasses import replace

from lorbms_fast.config import TrainConfig


def settings(config: TrainConfig) -> TrainConfig:
    """The decoder and the discriminator of the two variants that have it in one."""
    model = replace(config.model, decoder="attention-decoder", discriminator="attention-discriminator")
    return replace(config, model=model)
