"""Exact nearest neighbours inside clusters (Algorithm 2, step 4)."""

import faiss
import numpy as np
from numpy.typing import NDArray

from lorbms_fast.similarity.table import NEIGHBOURS


def neighbours(
    features: NDArray[np.float32], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ten nearest rows in the same cluster, by squared L2 on raw features, the row itself excluded.

    An exact duplicate of the row is a neighbour at distance 0.

    Args:
        features: (N, D).
        labels: (N,) cluster numbers, each of at least eleven members.

    Returns:
        Rows (N, 10), nearest first, and their squared distances (N, 10).
    """
    n = len(features)
    rows = np.empty((n, NEIGHBOURS), np.int64)
    distances = np.empty((n, NEIGHBOURS), np.float32)
    by_cluster = np.argsort(labels, kind="stable")
    for members in np.split(by_cluster, np.flatnonzero(np.diff(labels[by_cluster])) + 1):
        index = faiss.IndexFlatL2(features.shape[1])
        index.add(features[members])
        found_distances, found = index.search(features[members], NEIGHBOURS + 1)
        found = members[found]
        itself = found == members[:, None]
        # Among more than ten duplicates the row itself may not be found: then the last of the eleven goes.
        itself[~itself.any(1), -1] = True
        rows[members] = found[~itself].reshape(-1, NEIGHBOURS)
        distances[members] = np.maximum(found_distances[~itself], 0).reshape(-1, NEIGHBOURS)
    return rows, distances
