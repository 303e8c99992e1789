"""Cells that features are divided into, so that a search need not look at all of them (Algorithm 2, step 3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.dataloader.neighbour_table import NEIGHBOURS
from lorbms_fast.similarity.kmeans import trained_kmeans

EXACT = 32_768
"""Max. number of images in a single cell: 2.7e12 operations for a quadrant of 1,280 numbers, a minute of one core."""
IMAGES_PER_CELL = 2000
"""Number of images per cell above `EXACT`: more are slower to search, fewer part more images from their nearest."""
MOST_CELLS = 32_768
"""Max. number of cells: k-means of more takes one machine too long. From 66 million images on cells grow."""
IMAGES_PER_CLUSTER = 80
"""The author's k = 1,700 for about 135,000 images."""
COMPONENTS = 256
"""The author's principal components."""
PCA_ROWS = 32_768
"""Max. number of images, drawn at random, that the principal components are computed from."""
TRAINED_ON = 64
"""Max. number of images that a cell's centroid is trained on: for 169 cells of 4,096 numbers a copy of 0.18 GB."""
FLOOR = 1e-6
"""Share of the largest variance that is added to all before whitening, lest components without any become noise."""
BLOCK = 8192


class Vectors(Protocol):
    """Features (N, D): an array, in memory or mapped, or something larger that gives float32 rows like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> Any: ...


@dataclass(frozen=True)
class Cells:
    """Rows divided by their nearest centroids (k, d) in a space (N, d)."""

    space: Vectors
    centroids: NDArray[np.float32]
    members: Sequence[NDArray[np.int64]]
    """The rows of each cell, ascending."""

    def __len__(self) -> int:
        return len(self.members)

    @classmethod
    def divide(cls, space: NDArray[np.float32], centroids: NDArray[np.float32], rows: NDArray[np.int64]) -> "Cells":
        """Assign rows of a space to their nearest centroids."""
        labels = closest_centroids(space, centroids, rows, 1)[:, 0]
        return cls(space, centroids, [rows[labels == cell] for cell in range(len(centroids))])

    @classmethod
    def undivided(cls, features: Vectors, rows: NDArray[np.int64]) -> "Cells":
        """Put all rows into one cell."""
        return cls(features, features[rows[:1]], [rows])

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of rows in each cell."""
        return np.array([len(members) for members in self.members])

    def closest(self, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Find the `count` cells nearest to each row, nearest centroid first, (len(rows), count)."""
        if len(self) == 1:
            return np.zeros((len(rows), 1), np.int64)
        return closest_centroids(self.space, self.centroids, rows, count)


def plain_cells(
    features: NDArray[np.float32], rows: NDArray[np.int64], k: int, seed: int, device: torch.device
) -> Cells:
    """Divide rows by k-means on their features as they are."""
    k = at_most(k, len(rows))
    if k == 1:
        return Cells.undivided(features, rows)
    centroids = trained_kmeans(features[trained_on(rows, k, seed)], k, seed, device).centroids
    return Cells.divide(features, np.asarray(centroids), rows)


def whitened_cells(
    features: NDArray[np.float32], rows: NDArray[np.int64], k: int, seed: int, device: torch.device
) -> Cells:
    """Divide rows by k-means on whitened principal components, as the author's program does; unfit for small sets."""
    space = whitened(features, seed)
    centroids = trained_kmeans(space[rows], at_most(k, len(rows)), seed, device).centroids
    return Cells.divide(space, np.asarray(centroids), rows)


def whitened(features: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """Project features (N, D), maybe mapped, on whitened components, L2-normalized: (N, min(256, D, N)).

    Needs memory for 32,768 D + 256 N numbers.
    """
    n, d = features.shape
    pca = faiss.PCAMatrix(d, min(COMPONENTS, d, n), -0.5)
    drawn = np.random.Generator(np.random.Philox(seed)).permutation(n)[:PCA_ROWS]
    pca.train(features[np.sort(drawn)])
    variances = faiss.vector_to_array(pca.eigenvalues)
    pca.epsilon = max(FLOOR * float(variances.max()), float(np.finfo(np.float32).tiny)) - min(
        0.0, float(variances.min())
    )
    pca.prepare_Ab()
    reduced = np.empty((n, pca.d_out), np.float32)
    for block in _blocks(n):
        reduced[block] = pca.apply(np.ascontiguousarray(features[block]))
        faiss.normalize_L2(reduced[block])
    return reduced


def at_most(k: int, images: int) -> int:
    """Limit k to cells of eleven images or more on average."""
    return max(1, min(k, images // (NEIGHBOURS + 1)))


def trained_on(rows: NDArray[np.int64], k: int, seed: int) -> NDArray[np.int64]:
    """Draw those of some rows that k plain cells are trained on, in order."""
    return np.sort(np.random.Generator(np.random.Philox(seed)).permutation(rows)[: k * TRAINED_ON])


def closest_centroids(
    space: Vectors, centroids: NDArray[np.float32], rows: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Find the `count` centroids nearest to each row, nearest first, (len(rows), count)."""
    found = np.empty((len(rows), count), np.int64)
    for block in _blocks(len(rows)):
        found[block] = faiss.knn(space[rows[block]], centroids, count)[1]
    return found


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + BLOCK) for start in range(0, n, BLOCK))
