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
from lorbms_fast.dataloader.prefetch import Prefetcher
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.progress import tqdm
from lorbms_fast.similarity.cells import (
    EXACT,
    IMAGES_PER_CELL,
    IMAGES_PER_CLUSTER,
    Cells,
    plain_cells,
    whitened_cells,
)
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.partial_search import PartialSearch
from lorbms_fast.similarity.search import CPU, Neighbours, nearest, nearest_of_few, recall

BATCH = 16
READERS = 2
NOTED = 8
"""Batches between two notes of what is done."""
RECALL_SAMPLE = 256
"""Images that recall is measured on; as many others decide how many cells are searched."""
AIM = 0.95
"""Part of a sample's ten nearest that the cells searched are to hold: 90% are asked for."""
EXACTLY = torch.float64
"""What the nearest of all are looked for in, to compare with."""
LARGEST = 1e16
"""Of features: the squared distance of 4,096 larger ones would not fit into float32."""


Method = Literal["nearest", "whitened-256"]


@dataclass(frozen=True)
class Settings:
    """How neighbours are looked for."""

    method: Method = "nearest"
    """nearest: so many cells that of a sample 95% of the ten nearest are found; whitened-256: one of the author's."""
    k: int | None = None
    """Cells; None for one of all images, of more than 32,768 one to 2,000 (the author's: one to 80)."""
    seed: int = 0
    """Of k-means and of the samples."""


@dataclass(frozen=True)
class Quadrant:
    """The neighbours of one quadrant, and how they were found."""

    rows: NDArray[np.int64]
    """(N, 10), nearest first."""
    distances: NDArray[np.float32]
    """(N, 10), squared L2."""
    sizes: NDArray[np.int64]
    """Images in every cell; copies are not among them."""
    probes: int
    """Cells that were searched for each image."""
    recall: float
    """Part of the ten nearest of all that are among those found: a mean over a sample."""


def quadrant_features(store: ImageStore, extractor: Extractor, work: PartialSearch) -> NDArray[np.float32]:
    """Features of all quadrants, (4, N, D), from the source photographs at the side the extractor wants.

    They are written into a mapped file as they come, 16 N D bytes; an interrupted pass goes on where it was.

    Raises:
        UserError: too few images, no room for the features, a photograph is gone, or features are no usable numbers.
    """
    if len(store) <= NEIGHBOURS:
        raise UserError(
            f"{len(store)} images: {NEIGHBOURS} neighbours for each need {NEIGHBOURS + 1} or more; prepare more images"
        )
    features: NDArray[np.float32] | None = None
    start = work.done
    with tqdm(total=len(store), initial=start, unit=" images", desc="features") as bar:
        for number, (rows, images) in enumerate(_batches(store, extractor.side, start), start=1):
            found = extractor.extract(images)[: len(rows)]
            _refuse_unusable(found, store, rows)
            if features is None:
                features = work.features(len(store), found.shape[2])
            features[:, rows.start : rows.stop] = found.swapaxes(0, 1)
            if number % NOTED == 0 or rows.stop == len(store):
                features.flush()  # type: ignore[attr-defined]
                work.note_done(rows.stop)
            bar.update(len(rows))
    return work.features(0, 0) if features is None else features


def find(
    features: NDArray[np.float32],
    pictures: NDArray[np.int64],
    settings: Settings,
    work: PartialSearch,
    device: torch.device = CPU,
) -> list[Quadrant]:
    """Ten nearest neighbours for each quadrant on its own; finished quadrants are not searched again.

    Args:
        features: (4, N, D), may be mapped.
        pictures: (N,), for every image the row of the one that it is a copy of, or its own.
        settings: how to search.
        work: where finished quadrants are kept.
        device: where distances are computed.
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
    features: NDArray[np.float32],
    pictures: NDArray[np.int64],
    settings: Settings,
    device: torch.device = CPU,
    done: Callable[[int], object] = lambda images: None,
) -> Quadrant:
    """Ten nearest neighbours for one quadrant, of features (N, D); `done` is called with the images done."""
    among = np.unique(pictures)
    if len(among) <= NEIGHBOURS:
        rows, distances = nearest_of_few(features, pictures)
        done(len(rows))
        return Quadrant(rows, distances, np.array([len(among)]), 1, 1.0)
    drawn = np.random.Generator(np.random.Philox(settings.seed)).permutation(len(features))
    trial, sample = np.array_split(drawn[: 2 * RECALL_SAMPLE], 2)
    everything = Cells.undivided(features, among)

    def exact(rows: NDArray[np.int64]) -> Neighbours:
        return nearest(features, rows, everything, 1, pictures, device, EXACTLY)

    cells, probes = divided(features, among, settings, device), 1
    if len(cells) > 1 and settings.method == "nearest":
        probes = enough_probes(cells, trial, exact(trial)[0])
        if 2 * probes > len(cells):
            cells, probes = everything, 1
    rows, distances = nearest(features, np.arange(len(features)), cells, probes, pictures, device, done=done)
    return Quadrant(rows, distances, cells.sizes, probes, recall(distances[sample], exact(sample)[1]))


def divided(features: NDArray[np.float32], among: NDArray[np.int64], settings: Settings, device: torch.device) -> Cells:
    """The cells that settings ask for, of some of the rows."""
    if settings.method == "whitened-256":
        k = settings.k or max(1, len(among) // IMAGES_PER_CLUSTER)
        return whitened_cells(features, among, k, settings.seed, device)
    k = settings.k or (1 if len(among) <= EXACT else len(among) // IMAGES_PER_CELL)
    return plain_cells(features, among, k, settings.seed, device)


def enough_probes(cells: Cells, rows: NDArray[np.int64], neighbours: NDArray[np.int64]) -> int:
    """The smallest number of cells to search so that they hold 95% of the neighbours of some rows.

    Args:
        cells: what is searched.
        rows: (S,).
        neighbours: (S, 10), the nearest of all.
    """
    cell_of = np.empty(len(cells.space), np.int64)
    for cell, members in enumerate(cells.members):
        cell_of[members] = cell
    order = cells.closest(rows, len(cells))
    place = (order[:, None] == cell_of[neighbours][..., None]).argmax(2)
    return int(np.quantile(place, AIM, method="higher")) + 1


def _refuse_unusable(found: NDArray[np.float32], store: ImageStore, rows: range) -> None:
    usable = (np.abs(found) <= LARGEST).all((1, 2))
    if not usable.all():
        row = rows[int(usable.argmin())]
        value = found[~usable][0][~(np.abs(found[~usable][0]) <= LARGEST)][0]
        raise UserError(
            f"the features of {store.entries([row])[0].place.path} hold {value}, whose distances cannot be told: "
            "check the weights, or take other --features; on a GPU, which computes them in float16, try --device cpu"
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

    ahead = Prefetcher(read, READERS)
    return ((one, ahead(number)) for number, one in enumerate(rows))
