"""`python -m bench.scale`: Algorithm 2 on as many images as COCO's training set gives (338,865), time and memory.

Features are drawn, not computed: groups around random centres, written by the same pass and searched by the same code
as those of photographs. What is anonymous memory is counted; pages of mapped files, which the system takes back when it
needs them, are not.
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
from lorbms_fast.similarity.clustering import COMPONENTS, PCA_ROWS, clusters, whitened
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.search import neighbours, recall
from lorbms_fast.similarity.workplace import Workplace

SAMPLE = 0.02
"""Seconds between two looks at the memory."""
GROUP = 80
"""Images around a centre: as many as a cluster has by default."""


def main() -> None:
    """Measure the pass that writes features, then the search for one quadrant: the other three are alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=338_865)
    parser.add_argument("--dimension", type=int, default=1280, help="of the features; 4096 for deepcluster")
    parser.add_argument("--clusters", type=int, help="by default one to 80 images")
    parser.add_argument(
        "--sample", type=int, default=algorithm2.RECALL_SAMPLE, help="images that recall is measured on"
    )
    asked = parser.parse_args()
    n, d = asked.images, asked.dimension
    k = asked.clusters or max(1, n // GROUP)
    print(f"{n:,} images, {d} features, {k:,} clusters; {machine()}, {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as folder:
        work = Workplace(Path(folder))
        with watched("features of four quadrants written", 4 * n):
            features = algorithm2.quadrant_features(drawn_photographs(n), drawn_features(d), work)  # type: ignore[arg-type]
        bound = 4 * (min(PCA_ROWS, n) * d + 2 * min(COMPONENTS, d) * n)
        print(f"bound stated for clustering: {bound / 1e9:.2f} GB and blocks of some 100 MB")
        with watched("whitened", n):
            whitened(features[0])
        with watched("clusters", n):
            labels = clusters(features[0], k, seed=0)
        with watched("neighbours", n):
            _, distances = neighbours(features[0], labels)
        sample = np.random.default_rng(0).permutation(n)[: asked.sample]
        with watched("recall", len(sample)):
            found = recall(features[0], distances, sample)
        sizes = np.bincount(labels)
        print(f"{len(sizes):,} clusters of {sizes.min()} to {sizes.max():,}; recall {found:.1%}")


def drawn_photographs(n: int) -> Any:
    """A store that gives each image's number instead of its pixels."""

    def squares(rows: range, side: int, decoder: object) -> NDArray[np.uint8]:
        return np.array(rows, np.int64).view(np.uint8).reshape(len(rows), 1, 1, 8)

    class Store(SimpleNamespace):
        def __len__(self) -> int:
            return n

    return Store(squares=squares)


def drawn_features(d: int) -> Extractor:
    """(images, 4, d): the images of a group lie around its centre."""

    def extract(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = np.ascontiguousarray(images).reshape(len(images), 8).view(np.int64)[:, 0]
        generator = np.random.default_rng(int(numbers[0]))
        centres = np.stack([np.random.default_rng(int(i % 4093)).standard_normal(d, np.float32) for i in numbers])
        return centres[:, None] + 2 * generator.standard_normal((len(images), 4, d), np.float32)

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
