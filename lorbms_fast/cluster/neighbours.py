"""Algorithm 2 on a cluster: what `lorbms_fast.similarity` computes, also for features that no single memory holds.

Features lie in files by ranges of rows. Where a machine has the memory for a quadrant's, its search is a task there,
and that of a single machine. Beyond, for each quadrant: k-means on a sample, cells of every range, the features once
more in the order of their cells, then the search of every few cells. Each step is a task whose result is a file in
`STORE/neighbours.partial`. What is there is not done again.
"""

import io
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import faiss
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from lorbms_fast.cluster.claims import claim
from lorbms_fast.cluster.features import FeatureRows, Ranges
from lorbms_fast.cluster.tasks import Machine, Task, has_gpus, is_gpu_task, machines, on_every_machine, result, results
from lorbms_fast.counted import counted
from lorbms_fast.dataloader.neighbour_table import NEIGHBOURS, QUADRANTS
from lorbms_fast.dataloader.places import Place, copied
from lorbms_fast.dataloader.shards import Shards
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.similarity.algorithm2 import (
    BATCH,
    EXACTLY,
    KEPT,
    Quadrant,
    Settings,
    enough_probes,
    extracted,
    find_for_quadrant,
    number_of_cells,
    trial_and_sample,
)
from lorbms_fast.similarity.cells import Cells, at_most, closest_centroids, trained_on
from lorbms_fast.similarity.copies import originals
from lorbms_fast.similarity.features import load_extractor
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.kmeans import trained_kmeans
from lorbms_fast.similarity.partial_search import FOLDER, digest_of_weights
from lorbms_fast.similarity.search import CPU, nearest, recall
from lorbms_fast.similarity.stored_features import LARGEST as LARGEST_KEPT

FILES = 2048
"""Number of files of features of a quadrant, about, unless they would have less than 256 or more than 4,096 images."""
SEARCHED = 16_384
"""Number of images, about, that a task searches for."""
IN_A_TASK = 4096
"""Number of images, about, whose files a task goes through where that is quick: a task costs Ray milliseconds."""
TOGETHER = 1_000_000
"""Max. number of images whose copies are looked for among all; of more, among those of a cell of the first quadrant.
One machine looks among all, however many there are."""
BESIDE = 1 << 30
"""Bytes that one machine's search takes beside what grows with the images: programs, and blocks that are compared."""
FIRST = "q1/features-00000.npy"
"""A file that is there from the first features to the end."""
LARGEST = float(np.finfo(np.float16).max)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Job:
    """The facts that the tasks of a search share."""

    store: Place
    root: Path
    """The photographs' place."""
    shapes: dict[str, tuple[int, int, int, int]]
    """Shapes of the store's files of images."""
    images: int
    features: str
    weights: Path | None
    settings: Settings
    gpu: bool
    work: Place
    """The place of results; another one for other features."""
    rows: int
    """Number of images in a file of features."""
    machine: Machine | None = None
    """Smallest that searches a quadrant whole; None: no machine has the memory, so it is searched in cells."""
    memory: int = 0
    """Bytes that such a search takes."""
    quadrant: int = 0

    @property
    def dtype(self) -> type[np.floating]:
        """The dtype of the files of features: one machine's, or half the bytes."""
        return np.float16 if self.machine is None else np.float32

    @property
    def files(self) -> list[slice]:
        """Rows of each file of features."""
        return [slice(start, min(start + self.rows, self.images)) for start in range(0, self.images, self.rows)]

    @property
    def counts(self) -> list[int]:
        """Number of images in each file of features."""
        return [of.stop - of.start for of in self.files]

    @property
    def by_rows(self) -> FeatureRows:
        """Features of the quadrant in the order of the store."""
        return FeatureRows(self.counts, partial(_mapped, self.work, f"q{self.quadrant + 1}/features"))


@dataclass(frozen=True)
class _Search:
    """The facts that the tasks of one quadrant's search share."""

    job: Job
    key: str
    """Folder of results that depend on the settings."""
    pictures: NDArray[np.int64]
    centroids: NDArray[np.float32]
    order: NDArray[np.int64]
    """Rows in the order of their cells; in each, originals before copies."""
    starts: NDArray[np.int64]
    """The cells' first places in that order; the last is behind all."""
    sizes: NDArray[np.int64]
    """Number of originals in each cell."""
    probes: int

    @property
    def cells(self) -> Cells:
        """Cells whose members are places in the order."""
        space = FeatureRows(self.job.counts, partial(_mapped, self.job.work, f"{self.key}/cells"))
        return Cells(space, self.centroids, Ranges(self.starts[:-1], self.starts[:-1] + self.sizes))


def search_on_cluster(
    store: ImageStore, place: Place, features: str, weights: Path | None, settings: Settings, on_gpu: bool, whole: Path
) -> tuple[list[Quadrant], NDArray[np.int64], str]:
    """Find ten nearest neighbours for each quadrant, each image's original, and the precision of the features.

    Every machine reaches the store's place and the extractor's weights; tasks take GPUs, if they may, where the cluster
    has some. The method is `nearest`. The file `whole` takes all features, float32, if they are no more than 1 GB.
    Raises UserError for too few pictures, features that are no usable numbers, and a task that failed.
    """
    shapes = {name: (count, *store.images.shape[1:]) for name, count in store.facts["shards"].items()}
    gpu, weights = on_gpu and has_gpus(), weights and weights.resolve()  # machines may work in other folders
    facts = [store.digest, features, digest_of_weights(weights)]
    if place.folder is None:
        claim(place / FOLDER, facts, "features or weights")
    dimension = result(_dimension, (features, weights), "extractor", 1, gpu=gpu, unit=" machine")
    memory = memory_of_search(len(store), dimension)
    machine = roomy(memory, gpu)
    print(f"search: {_form(machine, memory, gpu)}", flush=True)
    precision = "float16" if machine is None else "float32"
    work = place / FOLDER / sha256(dumps([*facts, precision]).encode()).hexdigest()[:12]
    rows = rows_of_a_file(len(store))
    job = Job(place, store.root, shapes, len(store), features, weights, settings, gpu, work, rows, machine, memory)
    _compute_features(job, store)
    try:
        found, pictures = _search(job)
    except UserError as error:
        if job.work.exists(FIRST):
            raise
        raise UserError(
            f"{job.work.name} was removed meanwhile, by a person or by another process that has found the neighbours "
            f"of {place.name}: use those, or run the command again"
        ) from error
    if 16 * job.images * job.by_rows.dimension <= LARGEST_KEPT:
        every = np.stack([replace(job, quadrant=q).by_rows[:] for q in range(QUADRANTS)])
        _save(Place(str(whole.parent)), whole.name, every)
    return found, pictures, precision


def memory_of_search(images: int, dimension: int) -> int:
    """Bytes that the search of a quadrant takes on one machine: float32 features, samples of them, and lists of ten."""
    return 5 * images * dimension + 500 * images + BESIDE


def roomy(memory: int, gpu: bool) -> Machine | None:
    """Find the machine with the most processors among those that have so much memory, if there is one."""
    return next((one for one in machines(gpu) if one.memory >= memory), None)


def _form(machine: Machine | None, memory: int, gpu: bool) -> str:
    needs = f"it takes {memory / 1e9:.1f} GB of memory"
    if machine is not None:
        of = counted(machine.processors, "processor")
        return f"a quadrant by one machine of {of}, as without --cluster ({needs}, of its {machine.memory / 1e9:.1f})"
    most = max((one.memory for one in machines(gpu)), default=0)
    return (
        f"in cells, by all machines, with float16 features (by one {needs}, and Ray counts {most / 1e9:.1f} on the "
        "largest: ray start --memory)"
    )


def _dimension(shared: tuple[str, Path | None], item: None) -> int:
    """Number of features of a quadrant."""
    extractor = _extractor(*shared, _device().type)
    return extractor.extract(np.zeros((BATCH, extractor.side, extractor.side, 3), np.uint8)).shape[2]


def _search(job: Job) -> tuple[list[Quadrant], NDArray[np.int64]]:
    """Search all quadrants, whose features are there."""
    pictures: NDArray[np.int64] | None = None
    if job.machine is not None or job.images <= TOGETHER:
        pictures = result(_pictures, job, "copies", job.images)
        if job.machine is not None:
            return search_whole(job, pictures, range(QUADRANTS)), pictures
    found = []
    for q in range(QUADRANTS):
        quadrant, pictures = search_in_cells(replace(job, quadrant=q), pictures)
        found.append(quadrant)
        on_every_machine(_forget, (job.work, [q]))
    assert pictures is not None
    return found, pictures


def rows_of_a_file(images: int) -> int:
    """Number of images in a file of features, whole batches of an extractor."""
    return min(max(images // FILES // BATCH * BATCH, 256), 4096)


def _forget(copied: tuple[Place, Sequence[int]]) -> None:
    """Remove this machine's copies of some quadrants' files."""
    work, quadrants = copied
    if work.folder is None:
        for q in quadrants:
            shutil.rmtree(work.copies / f"q{q + 1}", ignore_errors=True)


def _compute_features(job: Job, store: ImageStore) -> None:
    def part(rows: slice) -> tuple[int, int, pa.Table]:
        """The rows' first and last in an index of whole photographs."""
        start = store.rows_beside(rows.start).start
        whole = pa.array(range(start, store.rows_beside(rows.stop - 1).stop))
        return rows.start - start, rows.stop - start, store.index.take(whole)  # a slice is sent with all it is part of

    tasks = (
        Task(f"features of images {of.start} to {of.stop - 1}", of.stop - of.start, (number, *part(of)))
        for number, of in enumerate(job.files)
    )
    for _ in results(_features, job, tasks, "features", job.images, gpu=job.gpu):
        pass


def _features(job: Job, item: tuple[int, int, int, pa.Table]) -> None:
    number, start, stop, index = item
    names = [f"q{q + 1}/features-{number:05d}.npy" for q in range(QUADRANTS)]
    if all(job.work.exists(name) for name in names):
        return
    part = ImageStore(Path(job.store.name), Shards([], np.zeros(1, np.int64)), index, job.root, {})
    extractor = _extractor(job.features, job.weights, _device().type)
    found = np.concatenate([features for _, features in extracted(part, stop, extractor, start)])
    if job.dtype == np.float16 and np.abs(found).max() > LARGEST:
        raise UserError(
            f"the features '{job.features}' reach {np.abs(found).max():g}, too much for float16, which is "
            "used where no machine has the memory for all: take others"
        )
    for q, name in enumerate(names):
        _save(job.work, name, found[:, q].astype(job.dtype, copy=False))


@lru_cache(maxsize=1)
def _extractor(features: str, weights: Path | None, device: str) -> Extractor:
    retain_freed_memory(KEPT)
    return load_extractor(features, weights, torch.device(device))


def _device() -> torch.device:
    return torch.device("cuda") if is_gpu_task() else CPU


def _mapped(place: Place, prefix: str, number: int) -> NDArray[np.floating]:
    mapped: NDArray[np.floating] = np.load(place.near(f"{prefix}-{number:05d}.npy"), mmap_mode="r", allow_pickle=False)
    return mapped


def _pictures(job: Job, item: None) -> NDArray[np.int64]:
    return _kept(job.work, "pictures.npz", lambda: {"rows": originals(_images(job))})["rows"]


def _images(job: Job) -> Shards:
    folder = copied(Path(job.store.name))
    return Shards.open({folder / name: shape for name, shape in job.shapes.items()}, "prepare the store again")


def _copies_in_cells(shared: tuple[Job, str], item: tuple[int, list[NDArray[np.int64]]]) -> tuple[Any, Any]:
    """Originals of the rows of some cells, each among its own."""
    (job, key), (number, cells) = shared, item

    def find() -> Arrays:
        images = _images(job)
        found = [rows[originals(images[rows])] for rows in cells]
        return {"rows": np.concatenate(cells), "originals": np.concatenate(found)}

    kept = _kept(job.work, f"{key}/pictures-{number:05d}.npz", find)
    return kept["rows"], kept["originals"]


def search_whole(job: Job, pictures: NDArray[np.int64], quadrants: Sequence[int]) -> list[Quadrant]:
    """Search each quadrant by one machine; several machines search several at a time."""
    assert job.machine is not None
    tasks = [Task(f"neighbours of quadrant {q + 1}", job.images, q) for q in quadrants]
    processors = job.machine.processors
    needs: dict[str, Any] = {"processors": processors, "memory": job.memory, "gpu": job.gpu}
    shared = (job, pictures, processors)
    found = results(_search_quadrant, shared, tasks, "neighbours", len(tasks) * job.images, **needs)
    by_quadrant = {task.item: quadrant for task, quadrant in found}
    on_every_machine(_forget, (job.work, quadrants))
    return [by_quadrant[q] for q in quadrants]


def _search_quadrant(shared: tuple[Job, NDArray[np.int64], int], quadrant: int) -> Quadrant:
    """Search a quadrant as one machine does, which has the memory."""
    job, pictures, processors = shared
    job = replace(job, quadrant=quadrant)

    def find() -> Arrays:
        with threads(processors):
            return vars(find_for_quadrant(job.by_rows[:], pictures, job.settings, _device()))

    kept = _kept(job.work, f"{_key(job, 1)}/found.npz", find)
    return Quadrant(kept["rows"], kept["distances"], kept["sizes"], int(kept["probes"]), float(kept["recall"]))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let Faiss and PyTorch use so many threads for the time of a block; Ray tells its processes to use one."""
    before = faiss.omp_get_max_threads(), torch.get_num_threads()
    try:
        faiss.omp_set_num_threads(count)
        torch.set_num_threads(count)
        yield
    finally:
        faiss.omp_set_num_threads(before[0])
        torch.set_num_threads(before[1])


def search_in_cells(job: Job, pictures: NDArray[np.int64] | None) -> tuple[Quadrant, NDArray[np.int64]]:
    """Search a quadrant by all machines; the images' originals, if they are None, are looked for in its cells."""
    among = np.arange(job.images) if pictures is None else np.unique(pictures)
    k = at_most(number_of_cells(len(among), job.settings), len(among))
    key = _key(job, k)
    drawn = trained_on(among, k, job.settings.seed)
    kept = _kept(job.work, f"{key}/centroids.npz", lambda: {"centroids": _trained(job, _picked(job, drawn), k)})
    centroids = kept["centroids"]
    key = f"{key}-{_digest(centroids)}"  # another process's may be others
    labels = np.empty(job.images, np.int32)
    for rows, cells in _of_files(_labels, (job, key, centroids), job, "cells"):
        labels[rows] = cells
    if pictures is None:
        pictures = _pictures_by_cells(job, key, labels, k)
    if (count := len(np.unique(pictures))) <= NEIGHBOURS:
        raise UserError(f"{job.store.name} has {count} different pictures: prepare more, or leave --cluster out")
    trial, sample = trial_and_sample(job.images, job.settings.seed)
    both = np.concatenate([trial, sample])
    of_both = _picked(job, both)
    exact = _kept(job.work, f"{key}/exact.npz", lambda: _exhaustive(job, both, of_both, pictures))
    order = closest_centroids(of_both, centroids, np.arange(len(trial)), k)
    probes = enough_probes(order, labels[exact["rows"][: len(trial)]].astype(np.int64))
    if 2 * probes > k:
        labels[:], centroids, probes, key = 0, of_both[:1], 1, f"{key}-undivided"
    found, distances, sizes = _searched(job, key, pictures, centroids, labels, probes)
    share = recall(distances[sample], exact["distances"][len(trial) :])
    return Quadrant(found, distances, sizes, probes, share), pictures


def _digest(array: NDArray[Any]) -> str:
    return sha256(array.tobytes()).hexdigest()[:8]


def _key(job: Job, k: int) -> str:
    settings = sha256(dumps(asdict(job.settings)).encode()).hexdigest()[:8]
    return f"q{job.quadrant + 1}/{settings}-{k}"


def _of_files(
    work: Callable[..., Any], shared: Any, job: Job, what: str, gpu: bool = False
) -> Iterator[tuple[slice, Any]]:
    """Do work on every file of features, `work(shared, (number, rows))`, some in a task; yield rows and results."""
    tasks = (
        Task(
            f"{what} of images {some[0][1].start} to {some[-1][1].stop - 1}",
            sum(of.stop - of.start for _, of in some),
            some,
        )
        for some in _some(list(enumerate(job.files)), job)
    )
    what = f"{what}, quadrant {job.quadrant + 1}"
    for task, found in results(_each, (work, shared), tasks, what, job.images, gpu=gpu):
        for (_, of), one in zip(task.item, found, strict=True):
            yield of, one


def _some(files: list[Any], job: Job) -> Iterator[list[Any]]:
    """Divide files into those of a task."""
    together = max(1, IN_A_TASK // job.rows)
    return (files[i : i + together] for i in range(0, len(files), together))


def _each(shared: tuple[Callable[..., Any], Any], items: list[Any]) -> list[Any]:
    work, of_work = shared
    return [work(of_work, item) for item in items]


def _picked(job: Job, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Features of some rows, in memory."""
    of_file = rows // job.rows
    tasks = [
        Task(f"features of a sample in files {some[0]} to {some[-1]}", len(some), items)
        for some in _some(np.unique(of_file).tolist(), job)
        for items in [[(number, rows[of_file == number] % job.rows) for number in some]]
    ]
    found: NDArray[np.float32] | None = None
    files = sum(task.images for task in tasks)
    for task, parts in results(_each, (_pick, job), tasks, "sample", files, unit=" files"):
        for (number, _), part in zip(task.item, parts, strict=True):
            found = np.empty((len(rows), part.shape[1]), np.float32) if found is None else found
            found[of_file == number] = part
    assert found is not None
    return found


def _pick(job: Job, item: tuple[int, NDArray[np.int64]]) -> NDArray[np.float32]:
    number, rows = item
    return _mapped(job.work, f"q{job.quadrant + 1}/features", number)[rows].astype(np.float32)


def _trained(job: Job, sample: NDArray[np.float32], k: int) -> NDArray[np.float32]:
    processors = 1 if job.gpu else machines()[0].processors
    options: dict[str, Any] = {"gpu": job.gpu, "processors": processors}
    centroids: NDArray[np.float32] = result(_train, (job, sample, k, processors), "k-means", len(sample), **options)
    return centroids


def _train(shared: tuple[Job, NDArray[np.float32], int, int], item: None) -> NDArray[np.float32]:
    job, sample, k, processors = shared
    with threads(processors):
        return np.asarray(trained_kmeans(sample, k, job.settings.seed, _device()).centroids)


def _labels(shared: tuple[Job, str, NDArray[np.float32]], item: tuple[int, slice]) -> NDArray[np.int32]:
    """Nearest cell of every image of a file of features."""
    (job, key, centroids), (number, _) = shared, item

    def find() -> Arrays:
        features = _mapped(job.work, f"q{job.quadrant + 1}/features", number).astype(np.float32)
        nearest_cells = closest_centroids(features, centroids, np.arange(len(features)), 1)[:, 0]
        return {"cells": nearest_cells.astype(np.int32)}

    return _kept(job.work, f"{key}/labels-{number:05d}.npz", find)["cells"]


def _pictures_by_cells(job: Job, key: str, labels: NDArray[np.int32], k: int) -> NDArray[np.int64]:
    order = np.argsort(labels, kind="stable")
    cells = np.split(order, np.searchsorted(labels[order], np.arange(1, k)))
    tasks = [
        Task(f"copies in cells {some[0]} to {some[-1]}", sum(map(len, of)), (number, of))
        for number, some in enumerate(_runs(np.array([len(cell) for cell in cells])))
        for of in [[cells[cell] for cell in some]]
    ]
    pictures = np.arange(job.images)
    for _, (rows, found) in results(_copies_in_cells, (job, key), tasks, "copies", job.images):
        pictures[rows] = found
    return pictures


def _exhaustive(
    job: Job, rows: NDArray[np.int64], features: NDArray[np.float32], pictures: NDArray[np.int64]
) -> Arrays:
    """The ten nearest of all to some rows: those of each file of features, merged."""
    best_rows = np.full((len(rows), NEIGHBOURS), -1)
    best = np.full((len(rows), NEIGHBOURS), np.inf, np.float32)
    for of, (found, distances) in _of_files(_exhaust, (job, rows, features, pictures), job, "recall", job.gpu):
        every = np.hstack([best_rows, np.where(np.isinf(distances), -1, found + of.start)])
        of_every = np.hstack([best, distances])
        order = np.lexsort((every, of_every), axis=1)[:, :NEIGHBOURS]
        best_rows, best = np.take_along_axis(every, order, 1), np.take_along_axis(of_every, order, 1)
    return {"rows": best_rows, "distances": best}


def _exhaust(
    shared: tuple[Job, NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]], item: tuple[int, slice]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ten nearest to some rows in a file of features, by their place in it."""
    (job, rows, features, pictures), (number, of) = shared, item
    here = np.arange(of.start, of.stop)
    both = np.concatenate([_mapped(job.work, f"q{job.quadrant + 1}/features", number).astype(np.float32), features])
    targets = np.flatnonzero(pictures[here] == here)
    if not len(targets):
        return np.full((len(rows), NEIGHBOURS), -1), np.full((len(rows), NEIGHBOURS), np.inf, np.float32)
    cells = Cells.undivided(both, targets)
    of_both = np.concatenate([pictures[here], pictures[rows]])
    return nearest(both, len(here) + np.arange(len(rows)), cells, 1, of_both, _device(), EXACTLY)


def _searched(
    job: Job, key: str, pictures: NDArray[np.int64], centroids: NDArray[np.float32], labels: NDArray[np.int32],
    probes: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:  # fmt: skip
    """Search all rows: their neighbours (N, 10), distances, and the cells' sizes."""
    k, is_copy = len(centroids), pictures != np.arange(job.images)
    order = np.lexsort((is_copy, labels))  # stable: of equals the first row comes first
    starts = np.searchsorted(labels[order], np.arange(k + 1))
    sizes = np.bincount(labels[~is_copy], minlength=k)
    key = f"{key}-{_digest(order)}"
    search = _Search(job, key, pictures[order], centroids, order, starts, sizes, probes)
    for _ in _of_files(_in_order, (job, key, order), job, "in order"):
        pass
    parts = [(start, min(start + SEARCHED, job.images)) for start in range(0, job.images, SEARCHED)]
    tasks = [Task(f"neighbours of images {a} to {b} by cells", b - a, (a, b)) for a, b in parts]
    what = f"neighbours of quadrant {job.quadrant + 1}"
    rows = np.empty((job.images, NEIGHBOURS), np.int64)
    distances = np.empty((job.images, NEIGHBOURS), np.float32)
    for task, (places, found) in results(_find, search, tasks, what, job.images, gpu=job.gpu):
        of_task = order[slice(*task.item)]
        again = np.lexsort((order[places], found), axis=1)  # equally near ones by their rows
        rows[of_task] = np.take_along_axis(order[places], again, 1)
        distances[of_task] = np.take_along_axis(found, again, 1)
    return rows, distances, sizes


def _runs(sizes: NDArray[np.int64]) -> list[range]:
    """Divide cells into runs of about `SEARCHED` images."""
    run = np.cumsum(sizes) // SEARCHED
    ends = [*(np.flatnonzero(np.diff(run)) + 1).tolist(), len(sizes)]
    return [range(a, b) for a, b in zip([0, *ends], ends, strict=False) if b > a]


def _in_order(shared: tuple[Job, str, NDArray[np.int64]], item: tuple[int, slice]) -> None:
    """Write the features once more, a file of them, in the order of their cells."""
    (job, key, order), (number, of) = shared, item
    name = f"{key}/cells-{number:05d}.npy"
    if job.work.exists(name):
        return
    _save(job.work, name, job.by_rows[order[of]].astype(np.float16))


def _find(search: _Search, item: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find the neighbours of rows by their places in the order of cells, as places."""
    start, stop = item

    def find() -> Arrays:
        cells = search.cells
        places, distances = nearest(
            cells.space, np.arange(start, stop), cells, search.probes, search.pictures, _device()
        )
        return {"places": places, "distances": distances}

    kept = _kept(search.job.work, f"{search.key}/found-{start:012d}-{stop:012d}.npz", find)
    return kept["places"], kept["distances"]


def _save(place: Place, name: str, array: NDArray[Any]) -> None:
    with place.write(name) as path, path.open("w+b") as file:  # numpy's way with "wb" does not say that a disk is full
        np.save(file, array, allow_pickle=False)


def _kept(work: Place, name: str, make: Callable[[], Mapping[str, Any]]) -> Arrays:
    """Arrays of a file of results, which are made if it is not there."""
    if work.exists(name):
        try:
            with np.load(io.BytesIO(work.read(name)), allow_pickle=False) as saved:
                return dict(saved)
        except (ValueError, BadZipFile):  # half-written, where a place can hold such files
            pass
    made = {key: np.asarray(value) for key, value in make().items()}
    with work.write(name) as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, **made)
    return made
