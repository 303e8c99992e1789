"""The nearest neighbours by squared L2 on raw features, in cells and among all (Algorithm 2, step 4)."""

from collections.abc import Callable, Iterator
from functools import partial

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.dataloader.neighbour_table import NEIGHBOURS
from lorbms_fast.similarity.cells import Cells, Vectors

CHUNK, QUERIES, TARGETS = 16_384, 1024, 4096
"""Number of rows searched for, compared, and compared with at a time: they bound the memory."""
SPARE = 6
"""Number of neighbours beyond ten in the final, precise comparison."""
PRECISE = 64
"""Number of rows whose precise distances are computed at a time."""

CPU = torch.device("cpu")

Neighbours = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows (Q, 10), nearest first, and their squared distances (Q, 10)."""


def nearest(
    features: Vectors, queries: NDArray[np.int64], cells: Cells, probes: int, pictures: NDArray[np.int64],
    device: torch.device = CPU, dtype: torch.dtype = torch.float32,
    done: Callable[[int], object] = lambda images: None,
) -> Neighbours:  # fmt: skip
    """Find the ten rows nearest to each query in the cells nearest to it, its own picture excluded.

    Candidates are found by products of matrices; the distances of the sixteen best are then differences squared and
    summed in float64. Of equally near ones the first rows count. Where the cells hold fewer than ten others, all do.

    Features are (N, D), queries (Q,) rows; the cells hold more than ten rows to find, one of each picture, and `probes`
    of them are searched for each query. `pictures` (N,) are equal for rows that are copies of each other. Candidates
    are searched on the device, their distances in the dtype; `done` is called with the number of rows done, now and
    then.
    """
    rows = np.empty((len(queries), NEIGHBOURS), np.int64)
    distances = np.empty((len(queries), NEIGHBOURS), np.float32)
    by_cell = np.argsort(cells.closest(queries, 1)[:, 0], kind="stable")
    for chunk in _blocks(by_cell, CHUNK):
        candidates = _candidates(features, queries[chunk], cells, probes, pictures, device, dtype)
        for part, some in zip(_blocks(chunk, PRECISE), _blocks(candidates, PRECISE), strict=True):
            rows[part], distances[part] = _ordered(features, queries[part], some)
        done(len(chunk))
    lacking = np.flatnonzero(np.isinf(distances[:, -1]))
    if len(lacking) and len(cells) > 1:
        everything = Cells.undivided(features, np.sort(np.concatenate(cells.members)))
        rows[lacking], distances[lacking] = nearest(features, queries[lacking], everything, 1, pictures, device, dtype)
    return rows, distances


def nearest_of_few(features: NDArray[np.float32], pictures: NDArray[np.int64]) -> Neighbours:
    """Find ten neighbours for every row of (N >= 11, D) features of at most ten pictures, with copies among them.

    Each list takes one image of every other picture, the nearest first, then their copies in turn, and only if these
    are too few, copies of the image itself. `pictures` (N,) is equal for copies.
    """
    copies = [np.flatnonzero(pictures == picture)[: NEIGHBOURS + 1] for picture in np.unique(pictures)]
    among = np.concatenate(copies)
    turn = np.concatenate([np.arange(len(rows)) for rows in copies])
    rows = np.empty((len(features), NEIGHBOURS), np.int64)
    distances = np.empty((len(features), NEIGHBOURS), np.float32)
    for queries in _blocks(np.arange(len(features)), PRECISE):
        candidates = np.broadcast_to(among, (len(queries), len(among)))
        to_all = _distances(features, queries, candidates)
        last = np.where(pictures[queries][:, None] == pictures[among], 1.0, 0.0)
        last[queries[:, None] == among] = 2
        chosen = np.lexsort((to_all, np.broadcast_to(turn, to_all.shape), last), axis=1)[:, :NEIGHBOURS]
        rows[queries], distances[queries] = _sorted(among[chosen], np.take_along_axis(to_all, chosen, 1))
    return rows, distances


def recall(distances: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    """Mean share of the ten nearest of all, at distances `exact` (S, 10), among the neighbours found (S, 10)."""
    return float((distances <= exact[:, -1:]).mean())


def _candidates(
    features: Vectors, queries: NDArray[np.int64], cells: Cells, probes: int, pictures: NDArray[np.int64],
    device: torch.device, dtype: torch.dtype,
) -> NDArray[np.int64]:  # fmt: skip
    """Rows (Q, 16) that hold the ten nearest, -1 where there are fewer, by distances in a dtype."""
    by_faiss = device.type == "cpu" and dtype == torch.float32
    closest: Closest = faiss.knn if by_faiss else partial(_closest_by_torch, device=device, dtype=dtype)
    best = np.full((len(queries), NEIGHBOURS + SPARE), np.inf)
    rows = np.full(best.shape, -1)
    probed = cells.closest(queries, probes)
    for cell in np.unique(probed):
        those = np.flatnonzero((probed == cell).any(1))
        for targets in _blocks(cells.members[cell], TARGETS):
            b = features[targets]
            origin = b.mean(0)  # far from it, differences of squares would lose their digits
            b -= origin
            for block in _blocks(those, QUERIES):
                a = features[queries[block]] - origin
                near, places = closest(a, b, min(best.shape[1] + 1, len(targets)))
                near_rows = targets[places]
                near[pictures[near_rows] == pictures[queries[block]][:, None]] = np.inf
                all_best, all_rows = np.hstack([best[block], near]), np.hstack([rows[block], near_rows])
                order = np.argpartition(all_best, best.shape[1] - 1, axis=1)[:, : best.shape[1]]
                best[block] = np.take_along_axis(all_best, order, 1)
                rows[block] = np.take_along_axis(all_rows, order, 1)
    rows[np.isinf(best)] = -1
    return rows


Found = tuple[NDArray[np.floating], NDArray[np.int64]]
"""Squared distances to the nearest few rows of another array, and their places there."""
Closest = Callable[[NDArray[np.float32], NDArray[np.float32], int], Found]


def _closest_by_torch(
    a: NDArray[np.float32], b: NDArray[np.float32], count: int, device: torch.device, dtype: torch.dtype
) -> Found:
    x, y = (torch.from_numpy(array).to(device, dtype) for array in (a, b))
    squared = torch.addmm(y.square().sum(1), x, y.T, alpha=-2).add_(x.square().sum(1, keepdim=True))
    distances, places = squared.topk(count, 1, largest=False)
    return distances.cpu().numpy(), places.cpu().numpy()


def _ordered(features: Vectors, queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> Neighbours:
    """The ten nearest of some candidates, -1 being none."""
    distances = _distances(features, queries, candidates)
    distances[candidates < 0] = np.inf
    rows, in_order = _sorted(candidates, distances)
    return rows[:, :NEIGHBOURS], in_order[:, :NEIGHBOURS]


def _distances(features: Vectors, queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.float64]:
    """Squared distances (Q, C), not expanded into products: an exact duplicate is at distance 0."""
    differences = features[candidates].astype(np.float64) - features[queries][:, None]
    return np.einsum("qkd,qkd->qk", differences, differences)


def _sorted(rows: NDArray[np.int64], distances: NDArray[np.float64]) -> Neighbours:
    order = np.lexsort((rows, distances), axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1).astype(np.float32)


def _blocks(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))
