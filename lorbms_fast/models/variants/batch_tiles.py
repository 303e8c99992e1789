"""Candidates are the nearest quadrants inside the batch, by squared L2 of their pixels: no neighbour search."""

from dataclasses import replace

from lorbms_fast.config import TrainConfig


def settings(config: TrainConfig) -> TrainConfig:
    """Other candidates. The scale of distances is another, too: a threshold meant for features is dropped."""
    return replace(config, mixing=replace(config.mixing, candidates="batch", tau=None))
