"""`python -m bench.scale`: Algorithm 2 on as many images as COCO's training set gives (338,865), time and memory.

Features are drawn, not computed: many numbers that depend on few, as a network's, in loose groups, written by the same
pass and searched by the same code as those of photographs. What is anonymous memory is counted; pages of mapped files,
which the system takes back when it needs them, are not.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.measurement.machine import machine
from lorbms_fast.measurement.proc import bytes_told
from lorbms_fast.similarity import algorithm2
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.partial_search import PartialSearch

SAMPLE = 0.02
"""Seconds between two looks at the memory."""
CAUSES, CENTRES = 24, 300
"""Numbers that an image's features depend on, and the groups they come in."""


def main() -> None:
    """Measure the pass that writes features, then the search for one quadrant: the other three are alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=338_865)
    parser.add_argument("--dimension", type=int, default=1280, help="of the features; 4096 for deepcluster")
    parser.add_argument("--clusters", type=int, help="by default one to 2,000 images")
    asked = parser.parse_args()
    n, d = asked.images, asked.dimension
    print(f"{n:,} images, {d} features; {machine()}, {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as folder:
        work = PartialSearch(Path(folder))
        with watched("features of four quadrants written", 4 * n):
            features = algorithm2.quadrant_features(drawn_photographs(n), drawn_features(d), work)  # type: ignore[arg-type]
        with watched("neighbours, and their recall", n):
            found = algorithm2.find_for_quadrant(features[0], np.arange(n), algorithm2.Settings(k=asked.clusters))
        sizes = found.sizes
        print(
            f"{found.probes} of {len(sizes):,} cells of {sizes.min():,} to {sizes.max():,} searched; "
            f"recall {found.recall:.1%}"
        )


def drawn_photographs(n: int) -> Any:
    """A store that gives each image's number instead of its pixels."""

    def squares(rows: range, side: int, decoder: object) -> NDArray[np.uint8]:
        return np.array(rows, np.int64).view(np.uint8).reshape(len(rows), 1, 1, 8)

    class Store(SimpleNamespace):
        def __len__(self) -> int:
            return n

    return Store(squares=squares)


def drawn_features(d: int) -> Extractor:
    """(images, 4, d): rectified mixtures of a few causes, around one of 300 centres, and noise."""
    fixed = np.random.default_rng(0)
    centres = fixed.standard_normal((CENTRES, CAUSES), np.float32)
    mixture = fixed.standard_normal((CAUSES, d), np.float32)

    def extract(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = np.ascontiguousarray(images).reshape(len(images), 8).view(np.int64)[:, 0]
        generator = np.random.default_rng(int(numbers[0]))
        causes = centres[generator.integers(CENTRES, size=(len(images), 4))]
        causes += generator.standard_normal(causes.shape, np.float32)
        noise = generator.standard_normal((len(images), 4, d), np.float32)
        return np.maximum(causes @ mixture, 0) + np.float32(0.3) * noise

    return Extractor(1, extract)


@contextmanager
def watched(what: str, count: int) -> Iterator[None]:
    """Print how long a block took and how much anonymous memory it took at most beyond what was there before."""
    before, done = anonymous(), threading.Event()
    peak = before

    def look() -> None:
        nonlocal peak
        while not done.wait(SAMPLE):
            peak = max(peak, anonymous())

    watcher = threading.Thread(target=look)
    watcher.start()
    start, cpu = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        done.set()
        watcher.join()
    print(
        f"{what}: {seconds:.1f} s, {cpu:.1f} s of processor, {count / cpu:,.0f} images/s of processor, "
        f"at most {(peak - before) / 1e9:.2f} GB",
        flush=True,
    )


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    return bytes_told("RssAnon")


if __name__ == "__main__":
    main()
