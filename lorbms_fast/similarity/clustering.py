"""Grouping features so that exact search stays affordable (Algorithm 2, steps 3 and 4)."""

import faiss
import numpy as np
from numpy.typing import NDArray

from lorbms_fast.similarity.table import NEIGHBOURS

COMPONENTS = 256
IMAGES_PER_CLUSTER = 80
"""The author's k = 1,700 for about 135,000 images."""
SMALLEST = NEIGHBOURS + 1
"""A cluster needs an image and ten others for its neighbours."""
ITERATIONS = 20
PCA_ROWS = 32_768
"""Images at most that the principal components are computed from, drawn at random."""
BLOCK = 8192


def whitened(features: NDArray[np.float32], seed: int = 0) -> NDArray[np.float32]:
    """PCA to 256 dimensions (fewer where there are fewer features or images) with whitening, then L2 normalisation.

    Needs memory for 32,768 D + 256 N numbers, whatever N.

    Args:
        features: (N, D), may be mapped.
        seed: of the images that the components are computed from.

    Returns:
        (N, min(256, D, N)).
    """
    n, d = features.shape
    pca = faiss.PCAMatrix(d, min(COMPONENTS, d, n), -0.5)
    drawn = np.random.Generator(np.random.Philox(seed)).permutation(n)[:PCA_ROWS]
    pca.train(features[np.sort(drawn)])
    reduced = np.empty((n, pca.d_out), np.float32)
    for start in range(0, n, BLOCK):
        block = pca.apply(np.ascontiguousarray(features[start : start + BLOCK]))
        faiss.normalize_L2(block)
        # A component without variance whitens to something that is no number; it says nothing either.
        reduced[start : start + BLOCK] = np.nan_to_num(block, nan=0.0, posinf=0.0, neginf=0.0)
    return reduced


def clusters(features: NDArray[np.float32], k: int, seed: int) -> NDArray[np.int64]:
    """k-means on whitened features; clusters with fewer than eleven members are merged into the nearest other one.

    Runs on a GPU where Faiss is built for one. As Faiss recommends, centroids are trained on at most 256 images each.

    Args:
        features: (N, D), N at least 11, may be mapped.
        k: clusters to begin with.
        seed: of the initial centroids.

    Returns:
        (N,) cluster numbers 0, 1, ..., each of at least eleven members.
    """
    reduced = whitened(features, seed)
    k = min(k, len(reduced) // SMALLEST)
    kmeans = faiss.Kmeans(
        reduced.shape[1],
        k,
        niter=ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=256,
        gpu=faiss.get_num_gpus() > 0,
    )
    kmeans.train(reduced)
    _, assigned = kmeans.index.search(reduced, 1)
    return merged(assigned[:, 0], np.asarray(kmeans.centroids))


def merged(assigned: NDArray[np.int64], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """Merge the smallest cluster into that with the nearest centroid until none has fewer than eleven members.

    Args:
        assigned: (N,) numbers of rows of `centroids`, N at least 11.
        centroids: (k, D).

    Returns:
        (N,) cluster numbers without gaps.
    """
    labels = assigned.copy()
    sizes = np.bincount(labels, minlength=len(centroids))
    while True:
        alive = np.flatnonzero(sizes)
        smallest = alive[sizes[alive].argmin()]
        if sizes[smallest] >= SMALLEST:
            return np.unique(labels, return_inverse=True)[1].astype(np.int64)
        others = alive[alive != smallest]
        nearest = others[np.square(centroids[others] - centroids[smallest]).sum(1).argmin()]
        labels[labels == smallest] = nearest
        sizes[nearest] += sizes[smallest]
        sizes[smallest] = 0
