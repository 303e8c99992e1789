"""Exact nearest neighbours, inside clusters (Algorithm 2, step 4) and among all for comparison."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.similarity.table import NEIGHBOURS

QUERIES, TARGETS = 1024, 4096
"""Rows that are compared at a time: memory is bounded by them, not by the size of a cluster."""
SPARE = 6
"""Neighbours beyond ten that take part in the last, precise comparison."""
PRECISE = 64
"""Rows whose precise distances are computed at a time."""

CPU = torch.device("cpu")


def neighbours(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    device: torch.device = CPU,
    found: Callable[[int], object] = lambda images: None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ten nearest rows in the same cluster, by squared L2 on raw features, the row itself excluded.

    Args:
        features: (N, D), may be mapped.
        labels: (N,) cluster numbers, each of at least eleven members.
        device: where distances are computed.
        found: called with the number of rows done, now and then.

    Returns:
        Rows (N, 10), nearest first, and their squared distances (N, 10).
    """
    rows = np.empty((len(features), NEIGHBOURS), np.int64)
    distances = np.empty((len(features), NEIGHBOURS), np.float32)
    by_cluster = np.argsort(labels, kind="stable")
    for members in np.split(by_cluster, np.flatnonzero(np.diff(labels[by_cluster])) + 1):
        rows[members], distances[members] = nearest(features, members, members, device)
        found(len(members))
    return rows, distances


def nearest(
    features: NDArray[np.float32], queries: NDArray[np.int64], among: NDArray[np.int64], device: torch.device = CPU
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ten rows of `among` nearest to each of `queries`, itself excluded; of equally near ones the first rows.

    Differences are squared and summed as they stand, not expanded into products: an exact duplicate is at distance 0.

    Args:
        features: (N, D), may be mapped.
        queries: (Q,) rows.
        among: (M,) rows, at least eleven.
        device: where distances are computed.

    Returns:
        Rows (Q, 10), nearest first, and their squared distances (Q, 10).
    """
    rows = np.empty((len(queries), NEIGHBOURS), np.int64)
    distances = np.empty((len(queries), NEIGHBOURS), np.float32)
    for start in range(0, len(queries), QUERIES):
        block = slice(start, start + QUERIES)
        candidates = _candidates(features, queries[block], among, device)
        for first in range(0, len(candidates), PRECISE):
            part = slice(start + first, min(start + first + PRECISE, start + len(candidates)))
            rows[part], distances[part] = _ordered(features, queries[part], candidates[first : first + PRECISE])
    return rows, distances


def recall(
    features: NDArray[np.float32], distances: NDArray[np.float32], sample: NDArray[np.int64], device: torch.device = CPU
) -> float:
    """How many of the ten nearest of all, the search in clusters finds: a mean over a sample.

    Args:
        features: (N, D).
        distances: (N, 10), of the neighbours found.
        sample: rows to compare.
        device: where distances are computed.
    """
    _, exact = nearest(features, sample, np.arange(len(features)), device)
    return float((distances[sample] <= exact[:, -1:]).mean())


def _candidates(
    features: NDArray[np.float32], queries: NDArray[np.int64], among: NDArray[np.int64], device: torch.device
) -> NDArray[np.int64]:
    """Rows (Q, 16 or fewer) that hold the ten nearest, by distances in float32."""
    a, own = torch.from_numpy(features[queries]).to(device), torch.from_numpy(queries).to(device)[:, None]
    best, rows = a.new_empty((len(queries), 0)), own[:, :0]
    for start in range(0, len(among), TARGETS):
        block = among[start : start + TARGETS]
        targets = torch.from_numpy(block).to(device)
        distances = _distances(a, torch.from_numpy(features[block]).to(device))
        distances.masked_fill_(own == targets, torch.inf)
        all_distances, all_rows = torch.cat([best, distances], 1), torch.cat([rows, targets.expand(len(own), -1)], 1)
        best, places = all_distances.topk(min(NEIGHBOURS + SPARE, all_distances.shape[1]), 1, largest=False)
        rows = all_rows.gather(1, places)
    return rows.cpu().numpy()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _ordered(
    features: NDArray[np.float32], queries: NDArray[np.int64], candidates: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ten nearest of some candidates by distances in float64."""
    differences = features[candidates].astype(np.float64) - features[queries][:, None]
    distances = np.einsum("qkd,qkd->qk", differences, differences)
    distances[candidates == queries[:, None]] = np.inf
    order = np.lexsort((candidates, distances), axis=1)[:, :NEIGHBOURS]
    return np.take_along_axis(candidates, order, 1), np.take_along_axis(distances, order, 1).astype(np.float32)
