"""Algorithm 2: features of all quadrants, clusters, neighbours, and the threshold that mixing needs."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.dataloader.ahead import ReadAhead
from lorbms_fast.dataloader.decoders import decoder_named
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.progress import tqdm
from lorbms_fast.similarity.clustering import IMAGES_PER_CLUSTER, SMALLEST, clusters
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.search import CPU, neighbours, recall
from lorbms_fast.similarity.table import NEIGHBOURS, QUADRANTS
from lorbms_fast.similarity.workplace import Workplace

BATCH = 16
READERS = 2
NOTED = 8
"""Batches between two notes of what is done."""
RECALL_SAMPLE = 256


@dataclass(frozen=True)
class Found:
    """The neighbours of every quadrant, and how they were found."""

    rows: NDArray[np.int64]
    """(N, 4, 10), nearest first."""
    distances: NDArray[np.float32]
    """(N, 4, 10), squared L2."""
    cluster_sizes: list[NDArray[np.int64]]
    """Members of every cluster, for each quadrant."""
    recall: list[float]
    """For each quadrant, which part of the ten nearest of all are among those found: a mean over a sample."""


def quadrant_features(store: ImageStore, extractor: Extractor, work: Workplace) -> NDArray[np.float32]:
    """Features of all quadrants, (4, N, D), from the source photographs at the side the extractor wants.

    They are written into a mapped file as they come, 16 N D bytes; an interrupted pass goes on where it was.

    Raises:
        UserError: too few images, no room for the features, or a photograph is gone.
    """
    if len(store) < SMALLEST:
        raise UserError(
            f"{len(store)} images: {NEIGHBOURS} neighbours for each need {SMALLEST} or more; prepare more images"
        )
    features: NDArray[np.float32] | None = None
    start = work.done
    with tqdm(total=len(store), initial=start, unit=" images", desc="features") as bar:
        for number, (rows, images) in enumerate(_batches(store, extractor.side, start), start=1):
            found = extractor.extract(images)[: len(rows)]
            if features is None:
                features = work.features(len(store), found.shape[2])
            features[:, rows.start : rows.stop] = found.swapaxes(0, 1)
            if number % NOTED == 0 or rows.stop == len(store):
                features.flush()  # type: ignore[attr-defined]
                work.note_done(rows.stop)
            bar.update(len(rows))
    return work.features(0, 0) if features is None else features


def find(features: NDArray[np.float32], k: int | None, seed: int, work: Workplace, device: torch.device = CPU) -> Found:
    """Clusters and ten nearest neighbours, for each quadrant on its own; finished quadrants are not done again.

    Args:
        features: (4, N, D), may be mapped.
        k: clusters to begin with; None for one to eighty images.
        seed: of k-means and of the sample for recall.
        work: where finished quadrants are kept.
        device: where distances are computed.
    """
    n = features.shape[1]
    settings = {"k": max(1, n // IMAGES_PER_CLUSTER) if k is None else k, "seed": seed}
    results = []
    for q in range(QUADRANTS):
        result = work.load(f"quadrant-{q + 1}", settings)
        if result is None:
            labels = clusters(features[q], settings["k"], seed)
            with tqdm(total=n, unit=" images", desc=f"neighbours of quadrant {q + 1}") as bar:
                rows, distances = neighbours(features[q], labels, device, bar.update)
            sample = np.random.Generator(np.random.Philox(seed)).permutation(n)[:RECALL_SAMPLE]
            result = {
                "rows": rows,
                "distances": distances,
                "sizes": np.bincount(labels),
                "recall": np.array(recall(features[q], distances, sample, device)),
            }
            work.save(f"quadrant-{q + 1}", settings, **result)
        results.append(result)
    return Found(
        np.stack([result["rows"] for result in results], axis=1),
        np.stack([result["distances"] for result in results], axis=1),
        [result["sizes"] for result in results],
        [float(result["recall"]) for result in results],
    )


def _batches(store: ImageStore, side: int, start: int) -> Iterator[tuple[range, NDArray[np.uint8]]]:
    """Rows and their square photographs, the next being read while the present ones are computed on.

    The last batch is filled up with black: a network may round differently in batches of another size, and equal
    photographs are to have equal features.
    """
    rows = [range(i, min(i + BATCH, len(store))) for i in range(start, len(store), BATCH)]
    decoder = decoder_named("scaled")

    def read(number: int) -> NDArray[np.uint8]:
        if number >= len(rows):
            return np.empty((0, side, side, 3), np.uint8)
        images = store.squares(rows[number], side, decoder)
        return np.pad(images, [(0, BATCH - len(images)), (0, 0), (0, 0), (0, 0)])

    ahead = ReadAhead(read, READERS)
    return ((one, ahead(number)) for number, one in enumerate(rows))
