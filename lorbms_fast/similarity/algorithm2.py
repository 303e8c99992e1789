"""Algorithm 2: features of all quadrants, clusters, neighbours, and the threshold that mixing needs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.similarity.clustering import IMAGES_PER_CLUSTER, SMALLEST, clusters
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.search import neighbours
from lorbms_fast.similarity.table import NEIGHBOURS, QUADRANTS

BATCH = 16
READERS = 2


@dataclass(frozen=True)
class Found:
    """The neighbours of every quadrant, and the sizes of the clusters they were sought in."""

    rows: NDArray[np.int64]
    distances: NDArray[np.float32]
    cluster_sizes: list[NDArray[np.int64]]


def quadrant_features(store: ImageStore, extractor: Extractor) -> NDArray[np.float32]:
    """Features of all quadrants, (4, N, D), from the source photographs at the side the extractor wants."""
    batches = [range(i, min(i + BATCH, len(store))) for i in range(0, len(store), BATCH)]
    features: NDArray[np.float32] | None = None
    with tqdm(total=len(store), unit="images", desc="features") as bar:
        for rows, images in _read_ahead(store, batches, extractor.side):
            found = extractor.extract(images)
            if features is None:
                features = np.empty((QUADRANTS, len(store), found.shape[2]), np.float32)
            features[:, rows.start : rows.stop] = found.swapaxes(0, 1)
            bar.update(len(rows))
    if features is None:
        raise UserError(f"{store.path} is empty: prepare some images first")
    return features


def find(features: NDArray[np.float32], k: int | None, seed: int) -> Found:
    """Clusters and ten nearest neighbours, for each quadrant on its own.

    Args:
        features: (4, N, D).
        k: clusters to begin with; None for one to eighty images.
        seed: of k-means.

    Raises:
        UserError: fewer than eleven images.
    """
    n = features.shape[1]
    if n < SMALLEST:
        raise UserError(f"{n} images: {NEIGHBOURS} neighbours for each need {SMALLEST} or more; prepare more images")
    rows = np.empty((n, QUADRANTS, NEIGHBOURS), np.int64)
    distances = np.empty((n, QUADRANTS, NEIGHBOURS), np.float32)
    sizes = []
    for q in tqdm(range(QUADRANTS), unit="quadrants", desc="neighbours"):
        labels = clusters(features[q], max(1, n // IMAGES_PER_CLUSTER) if k is None else k, seed)
        rows[:, q], distances[:, q] = neighbours(features[q], labels)
        sizes.append(np.bincount(labels))
    return Found(rows, distances, sizes)


def _read_ahead(store: ImageStore, batches: list[range], side: int) -> Iterator[tuple[range, NDArray[np.uint8]]]:
    """Read square photographs of the next batch while the present one is being computed on."""

    def read(rows: range) -> NDArray[np.uint8]:
        return np.stack([store.square(i, side) for i in rows])

    with ThreadPoolExecutor(READERS) as pool:
        waiting = [pool.submit(read, rows) for rows in batches[:READERS]]
        for i, rows in enumerate(batches):
            images = waiting.pop(0).result()
            if i + READERS < len(batches):
                waiting.append(pool.submit(read, batches[i + READERS]))
            yield rows, images
