"""Coordinates and self-attention in the discriminator."""

from dataclasses import replace

from lorbms_fast.config import TrainConfig
from lorbms_fast.models.variants import attention_discriminator, coordconv_discriminator

INITIAL_VALUES = attention_discriminator.INITIAL_VALUES


class Discriminator(coordconv_discriminator.Discriminator, attention_discriminator.Discriminator):
    """The PatchGAN with self-attention on five channels: the one's input, the other's layers."""


def settings(config: TrainConfig) -> TrainConfig:
    """Another discriminator."""
    return replace(config, model=replace(config.model, discriminator="coordconv-attention-discriminator"))
