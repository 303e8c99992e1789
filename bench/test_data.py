"""Batches of 144 samples (a reference and its four candidates, normalised, as the networks take them), by every reader.

The reference of all is five JPEG files a sample through a PyTorch DataLoader with Pillow, as the thesis trained. Beside
them: reading against a plain copy of as many bytes (a byte read becomes a float of four bytes written), preparing
against the best decoder, and the features that neighbours are searched by.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from bench.conftest import Compare
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.dataloader.decoders import cut
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.readers import MappedReader, Reader, ResidentReader, StreamedReader, decode_on
from lorbms_fast.dataloader.recipes import Recipe, square_crop
from lorbms_fast.dataloader.sources import Listing, of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.photos.scene import compose_scene
from lorbms_fast.similarity.features import efficientnet

PHOTOGRAPHS, STORED = 200, 20_000
BATCH, BATCHES, SIDE, ROUNDS = 12, 12, 64, 3
CORES = len(os.sched_getaffinity(0))
CPU = torch.device("cpu")
COPIES = 50
"""How often each photograph is prepared: starting the workers takes a second, which COCO's 67,777 would not notice."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of about COCO's size: 480 x 640 pixels, JPEG of quality 92."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(PHOTOGRAPHS):
        scene = compose_scene(np.random.Generator(np.random.Philox(i)))
        Image.fromarray(scene.image).save(folder / f"{i:06d}.jpg", quality=92)
    return folder


@pytest.fixture(scope="module")
def store(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """20,000 images, a quarter of a gigabyte in four shards: no cache holds them."""
    listing = repeated(photographs, STORED // PHOTOGRAPHS)
    out = tmp_path_factory.mktemp("stores") / "store"
    prepare_store(out, photographs, listing, Recipe(), workers=CORES)
    return ImageStore.open(out)


@pytest.fixture(scope="module")
def table(store: ImageStore) -> NeighbourTable:
    """Neighbours drawn at random: reading does not care."""
    generator = np.random.Generator(np.random.Philox(1))
    rows = generator.integers(len(store), size=(len(store), 4, 10))
    return NeighbourTable(rows, generator.uniform(1, 2, rows.shape).astype(np.float32), 1.5, "random")


def repeated(photographs: Path, times: int) -> Listing:
    found = of_folder(photographs).photographs
    return Listing([replace(one, id=f"{one.id}-{copy}") for copy in range(times) for one in found])


class Samples(Dataset[Tensor]):
    """Samples as files: a reference and one candidate of each quadrant."""

    def __init__(self, store: ImageStore, table: NeighbourTable) -> None:
        self.root, self.table = store.root, table
        self.sources = store.index["source"].to_pylist()

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: int) -> Tensor:
        candidates = self.table.rows[i][np.arange(4), i % 10]
        images = [self._read(self.sources[row]) for row in [i, *candidates.tolist()]]
        return to_float_nchw(np.stack(images))

    def _read(self, name: str) -> NDArray[np.uint8]:
        with Image.open(self.root / name) as image:
            photograph = np.asarray(image.convert("RGB"))
        height, width, _ = photograph.shape
        return cut(photograph, square_crop(0, name, 1, width, height), SIDE)


@pytest.fixture(scope="module")
def loading(store: ImageStore, table: NeighbourTable) -> Callable[[], None]:
    """Twelve batches of a PyTorch DataLoader; its workers run already, and have nothing to do afterwards."""
    samples = Samples(store, table)
    order: RandomSampler = RandomSampler(range(len(store)), replacement=True, num_samples=BATCHES * BATCH)
    loader = DataLoader(samples, BATCH, sampler=order, num_workers=CORES, persistent_workers=True)

    def run() -> None:
        for _ in loader:
            pass

    return run


def reading(store: ImageStore, table: NeighbourTable, read: Reader, batches: int = BATCHES) -> Callable[[], None]:
    """Batches of ours, others at every call."""
    source = NeighbourBatches(store, BATCH, seed=0, neighbours=table, tau=1.5, read=read)
    numbers = iter(range(10**9))

    def run() -> None:
        for _ in range(batches):
            source.batch(next(numbers))

    return run


def by_dali(store: ImageStore) -> Reader:
    pytest.importorskip("nvidia.dali")
    return lambda rows: to_float_nchw(decode_on(CPU, store, rows, SIDE))


def on_a_gpu(store: ImageStore) -> Reader:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    return ResidentReader.of(store, torch.device("cuda"))


READERS: dict[str, Callable[[ImageStore], Reader]] = {
    "decoded by threads": lambda store: StreamedReader(store, SIDE, CPU, threads=CORES),
    "decoded by dali on the cpu": by_dali,
    "of a mapped store": lambda store: MappedReader(store, CPU),
    "of a resident store": lambda store: ResidentReader.of(store, CPU),
    "of a store on a gpu": on_a_gpu,
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_batches(
    reader: Callable[[ImageStore], Reader], store: ImageStore, table: NeighbourTable, loading: Callable[[], None],
    compare: Compare,
) -> None:  # fmt: skip
    compare(loading, reading(store, table, reader(store)), ROUNDS, counted=False)


def test_batches_of_images_in_memory(store: ImageStore, table: NeighbourTable, compare: Compare) -> None:
    """The same rows by operations of torch's, as one would write it."""
    retain_freed_memory()  # as the train command does
    resident = ResidentReader.of(store, CPU)

    def gather(rows: NDArray[np.int64]) -> Tensor:
        return to_float_nchw(resident.images[torch.from_numpy(rows)])

    compare(reading(store, table, gather, 50), reading(store, table, resident, 50), 10, counted=False)


@pytest.mark.parametrize("mode", [MappedReader, ResidentReader.of], ids=["mapped", "resident"])
def test_reading(
    mode: Callable[[ImageStore, torch.device], Reader], store: ImageStore, table: NeighbourTable, compare: Compare
) -> None:
    """Copies that read and write as many bytes as a hundred batches do, where a byte read is four bytes written.

    They go through two arrays several times as large as the processor's cache, as STREAM has it. The bytes that we read
    are not in the cache either; what we write may be there, as the memory of the last batch is used again.
    """
    retain_freed_memory()  # as the train command does
    batches = 100
    moved = batches * BATCH * 5 * 3 * SIDE**2 * (1 + 4)
    a = torch.ones(64 << 20)
    b = torch.ones(64 << 20)
    copies = 5
    length = moved // (2 * a.element_size() * copies)
    windows = cycle(zip(a.split(length)[:-1], b.split(length)[:-1], strict=True))

    def copy() -> None:
        for source, target in islice(windows, copies):
            target.copy_(source)

    ours = reading(store, table, mode(store, CPU), batches)
    compare(copy, ours, 20, ceiling="copying as many bytes", counted=False)


def test_efficientnet_in_fewer_passes(compare: Compare) -> None:
    """The four quadrants of 16 images through EfficientNet-Lite0 as it is published, and as we run it."""
    retain_freed_memory()  # as the neighbours command does
    images = np.random.Generator(np.random.Philox(0)).integers(256, size=(16, 224, 224, 3), dtype=np.uint8)
    published = efficientnet.extractor(efficientnet.pretrained(), CPU)
    ours = efficientnet.load(None, CPU)
    compare(lambda: published.extract(images), lambda: ours.extract(images), 5)


def test_prepare(photographs: Path, tmp_path: Path, compare: Compare) -> None:
    """10,000 photographs decoded at a quarter of their size and resized on every core, against preparing as many."""
    files = sorted(photographs.iterdir()) * COPIES
    cv2.setNumThreads(1)

    def decode(path: Path) -> NDArray[np.uint8]:
        pixels = simplejpeg.decode_jpeg(path.read_bytes(), "RGB", min_height=120, min_width=120)
        side = min(pixels.shape[:2])
        return np.asarray(cv2.resize(pixels[:side, :side], (SIDE, SIDE), interpolation=cv2.INTER_AREA))

    def decode_all() -> None:
        with ThreadPoolExecutor(CORES) as pool:
            for _ in pool.map(decode, files):
                pass

    numbers = iter(range(10**9))

    def prepare() -> None:
        out = tmp_path / str(next(numbers))
        prepare_store(out, photographs, repeated(photographs, COPIES), Recipe(), workers=CORES)

    compare(decode_all, prepare, ROUNDS, ceiling="decoding and resizing alone", counted=False)
