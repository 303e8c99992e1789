"""Algorithm 2: features of all quadrants, and their neighbours."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.dataloader.decoders import decoder_named
from lorbms_fast.dataloader.neighbour_table import NEIGHBOURS, QUADRANTS
from lorbms_fast.dataloader.prefetch import ahead
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.progress import tqdm
from lorbms_fast.similarity.cells import (
    EXACT,
    IMAGES_PER_CELL,
    IMAGES_PER_CLUSTER,
    MOST_CELLS,
    Cells,
    plain_cells,
    whitened_cells,
)
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.partial_search import PartialSearch
from lorbms_fast.similarity.search import CPU, Neighbours, nearest, nearest_of_few, recall

BATCH = 16
KEPT = 1 << 30
"""Max. freed bytes that stay for the next batch's maps: new pages must be cleared, which takes half the time."""
READERS = 2
NOTED = 8
"""Number of batches between two notes of the progress."""
RECALL_SAMPLE = 256
"""Number of images that recall is measured on; as many others decide how many cells are searched."""
AIM = 0.95
"""Share of a sample's ten nearest that the searched cells must hold; 90% are required."""
EXACTLY = torch.float64
"""Dtype of the exact search that recall compares with."""
LARGEST = 1e16
"""Largest usable feature: the squared distance of 4,096 larger ones would overflow float32."""

Method = Literal["nearest", "whitened-256"]


@dataclass(frozen=True)
class Settings:
    """Settings of a neighbour search."""

    method: Method = "nearest"
    """nearest: as many cells as find 95% of a sample's ten nearest; whitened-256: one of the author's clusters."""
    k: int | None = None
    """Number of cells; None for one up to 32,768 images, then one for each 2,000 (whitened-256: for each 80)."""
    seed: int = 0
    """Seed of k-means and of the samples."""


@dataclass(frozen=True)
class Quadrant:
    """Neighbours of one quadrant: rows (N, 10), nearest first, and squared L2 distances (N, 10)."""

    rows: NDArray[np.int64]
    distances: NDArray[np.float32]
    sizes: NDArray[np.int64]
    """Number of images in every cell, without copies."""
    probes: int
    """Number of cells that were searched for each image."""
    recall: float
    """Mean share of the ten nearest of all among those found, on a sample."""


def quadrant_features(store: ImageStore, extractor: Extractor, work: PartialSearch) -> NDArray[np.float32]:
    """Compute the features of all quadrants, (4, N, D), from the source photographs at the extractor's side.

    They are written into a mapped file as they come, 16 N D bytes; an interrupted pass goes on where it was. Raises
    UserError for too little room, a photograph that is gone, or features that are no usable numbers.
    """
    features: NDArray[np.float32] | None = None
    start = work.done
    with tqdm(total=len(store), initial=start, unit=" images", desc="features") as bar:
        for number, (rows, found) in enumerate(extracted(store, len(store), extractor, start), start=1):
            if features is None:
                features = work.features(len(store), found.shape[2])
            features[:, rows.start : rows.stop] = found.swapaxes(0, 1)
            if number % NOTED == 0 or rows.stop == len(store):
                features.flush()  # type: ignore[attr-defined]
                work.note_done(rows.stop)
            bar.update(len(rows))
    return work.features(len(store), 0) if features is None else features


def find(
    features: NDArray[np.float32], pictures: NDArray[np.int64], settings: Settings, work: PartialSearch,
    device: torch.device = CPU,
) -> list[Quadrant]:  # fmt: skip
    """Find ten nearest neighbours for each quadrant, of features (4, N, D), maybe mapped.

    `pictures` (N,) are the rows of the images' originals (`copies.originals`). Finished quadrants are kept in `work`.
    """
    key = asdict(settings) | {"pictures": sha256(pictures.tobytes()).hexdigest()}
    results = []
    for q in range(QUADRANTS):
        saved = work.load(f"quadrant-{q + 1}", key)
        if saved is None:
            with tqdm(total=len(pictures), unit=" images", desc=f"neighbours of quadrant {q + 1}") as bar:
                found = find_for_quadrant(features[q], pictures, settings, device, bar.update)
            work.save(f"quadrant-{q + 1}", key, **{name: np.array(value) for name, value in vars(found).items()})
        else:
            numbers = int(saved["probes"]), float(saved["recall"])
            found = Quadrant(saved["rows"], saved["distances"], saved["sizes"], *numbers)
        results.append(found)
    return results


def find_for_quadrant(
    features: NDArray[np.float32], pictures: NDArray[np.int64], settings: Settings, device: torch.device = CPU,
    done: Callable[[int], object] = lambda images: None,
) -> Quadrant:  # fmt: skip
    """Find ten nearest neighbours for one quadrant, of features (N, D); `done` is called with the images done."""
    among = np.unique(pictures)
    if len(among) <= NEIGHBOURS:
        rows, distances = nearest_of_few(features, pictures)
        done(len(rows))
        return Quadrant(rows, distances, np.array([len(among)]), 1, 1.0)
    trial, sample = trial_and_sample(len(features), settings.seed)
    everything = Cells.undivided(features, among)

    def exact(rows: NDArray[np.int64]) -> Neighbours:
        return nearest(features, rows, everything, 1, pictures, device, EXACTLY)

    cells, probes = divided(features, among, settings, device), 1
    if len(cells) > 1 and settings.method == "nearest":
        probes = enough_probes(cells.closest(trial, len(cells)), _cell_of(cells)[exact(trial)[0]])
        if 2 * probes > len(cells):
            cells, probes = everything, 1
    rows, distances = nearest(features, np.arange(len(features)), cells, probes, pictures, device, done=done)
    return Quadrant(rows, distances, cells.sizes, probes, recall(distances[sample], exact(sample)[1]))


def divided(features: NDArray[np.float32], among: NDArray[np.int64], settings: Settings, device: torch.device) -> Cells:
    """Divide some rows into the cells that the settings ask for."""
    if settings.method == "whitened-256":
        k = settings.k or max(1, len(among) // IMAGES_PER_CLUSTER)
        return whitened_cells(features, among, k, settings.seed, device)
    return plain_cells(features, among, number_of_cells(len(among), settings), settings.seed, device)


def number_of_cells(images: int, settings: Settings) -> int:
    """Number of cells that so many images are divided into by `nearest`, unless they are too few for that."""
    return settings.k or (1 if images <= EXACT else min(images // IMAGES_PER_CELL, MOST_CELLS))


def trial_and_sample(images: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the rows that decide how many cells are searched, and those that recall is measured on."""
    drawn = np.random.Generator(np.random.Philox(seed)).permutation(images)
    trial, sample = np.array_split(drawn[: 2 * RECALL_SAMPLE], 2)
    return trial, sample


def enough_probes(order: NDArray[np.int64], cells_of: NDArray[np.int64]) -> int:
    """Find the smallest number of probed cells that hold 95% of some rows' neighbours.

    `order` (S, k) are all cells, for each row the nearest first, `cells_of` (S, 10) the cells of each row's neighbours.
    """
    place = np.stack([(row == cells[:, None]).argmax(1) for row, cells in zip(order, cells_of, strict=True)])
    return int(np.quantile(place, AIM, method="higher")) + 1


def _cell_of(cells: Cells) -> NDArray[np.int64]:
    cell_of = np.empty(len(cells.space), np.int64)
    for cell, members in enumerate(cells.members):
        cell_of[members] = cell
    return cell_of


def extracted(
    store: ImageStore, count: int, extractor: Extractor, start: int = 0
) -> Iterator[tuple[range, NDArray[np.float32]]]:
    """Yield rows from `start` to `count` and their features (B, 4, D), by batches; UserError for unusable ones."""
    for rows, images in _batches(store, count, extractor.side, start):
        found = extractor.extract(images)[: len(rows)]
        _refuse_unusable(found, store, rows)
        yield rows, found


def _refuse_unusable(found: NDArray[np.float32], store: ImageStore, rows: range) -> None:
    usable = (np.abs(found) <= LARGEST).all((1, 2))
    if not usable.all():
        row = rows[int(usable.argmin())]
        value = found[~usable][0][~(np.abs(found[~usable][0]) <= LARGEST)][0]
        raise UserError(
            f"the features of {store.entries([row])[0].place.path} hold {value}, whose distances cannot be told: "
            "check the weights, or take other --features; on a GPU, which computes them in float16, try --device cpu"
        )


def _batches(store: ImageStore, count: int, side: int, start: int) -> Iterator[tuple[range, NDArray[np.uint8]]]:
    """Yield rows and their square photographs, which are read ahead.

    The last batch is filled up with black: a network may round differently in batches of another size, and equal
    photographs are to have equal features.
    """
    rows = [range(i, min(i + BATCH, count)) for i in range(start, count, BATCH)]
    decoder = decoder_named("scaled")

    def read(some: range) -> NDArray[np.uint8]:
        images = store.squares(some, side, decoder)
        return np.pad(images, [(0, BATCH - len(images)), (0, 0), (0, 0), (0, 0)])

    return zip(rows, ahead(read, rows, READERS), strict=True)
