"""The batches that settings ask for, from a store."""

from typing import Any

from lorbms_fast.config import TrainConfig
from lorbms_fast.dataloader.batches import BatchSource, Candidates, NeighbourBatches
from lorbms_fast.dataloader.in_batch import Halves, NearestInBatch
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.readers import reader
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.devices import device_named
from lorbms_fast.errors import UserError
from lorbms_fast.models.variants import images_at_once

READ_AHEAD = 2
"""Number of batches of photographs that are decoded while one is trained on."""
OF_HALVES = 3
"""Number of images that a classifier of halves sees: the mixed one and the two it was made of."""


def batch_source(config: TrainConfig, store: ImageStore) -> BatchSource:
    """Make the batches that a config trains on, from a store and, where candidates come from them, its neighbours."""
    mixing, tiles, classifier = config.mixing, config.model.tiles, config.model.classifier
    if (mixing.candidates == "halves") != (images_at_once(classifier) == OF_HALVES):
        raise UserError(
            f"--mixing.candidates {mixing.candidates} does not go with --model.classifier {classifier}: "
            "halves mixes two images and needs the classifier of nine-tiles or hu, and these need halves"
        )
    if mixing.candidates == "halves":
        if mixing.tau is not None:
            raise UserError(f"--mixing.tau {mixing.tau:g} has no use, halves are mixed by random masks: set it to None")
        return Halves(store, config.batch_size, config.seed, tiles, **_reading(config, store))
    if tiles != 4:
        raise UserError(f"--model.tiles {tiles} needs --mixing.candidates halves: the others are for quadrants")
    if mixing.candidates == "batch":
        return NearestInBatch(store, config.batch_size, config.seed, mixing.tau, **_reading(config, store))
    return neighbour_batches(config, store)


def scene_batches(config: TrainConfig, store: ImageStore) -> NeighbourBatches | Halves:
    """Make batches to measure mixed scenes on: candidates from the neighbours, also where training takes others.

    Tiles that are no quadrants have no neighbours: there another image is taken, and a random mask.
    """
    if (tiles := config.model.tiles) == 4:
        return neighbour_batches(config, store)
    return Halves(store, config.batch_size, config.seed, tiles, **_reading(config, store))


def neighbour_batches(config: TrainConfig, store: ImageStore) -> NeighbourBatches:
    """Make batches with candidates from a store's neighbours."""
    mixing = config.mixing
    candidates: Candidates = "shared-rank" if mixing.candidates == "shared-rank" else "independent"
    reading = _reading(config, store)
    table = NeighbourTable.load(store)
    other_scale = mixing.candidates == "batch"  # there a threshold is for codes
    tau = table.tau if mixing.tau is None or other_scale else mixing.tau
    return NeighbourBatches(store, config.batch_size, config.seed, table, tau, candidates, **reading)


def _reading(config: TrainConfig, store: ImageStore) -> dict[str, Any]:
    """Choose how a store's images are read, and how many batches ahead."""
    read = reader(store, config.images, config.model.image_size, device_named(config.device))
    return {"read": read, "ahead": READ_AHEAD if config.images == "streamed" else 0}
