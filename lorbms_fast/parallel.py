"""Work shared by several processes, its results in one order."""

import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process
from os import _exit
from typing import TypeVar

import cv2
from tqdm import tqdm

S = TypeVar("S")
T = TypeVar("T")


def in_order(make: Callable[[S], T], items: Sequence[S], workers: int, description: str) -> Generator[T, None, None]:
    """Yield `make` of each item in the items' order, made by `workers` processes, under a progress bar.

    `make` and the items must be picklable when there are several workers. `make` is sent along with every few items,
    so what is large belongs into the items. An exception of `make` is raised here.
    """
    with tqdm(total=len(items), desc=description, unit=" images", disable=not items) as bar:
        for made in _made(make, items, workers):
            yield made
            bar.update()


def _made(make: Callable[[S], T], items: Sequence[S], workers: int) -> Iterator[T]:
    if workers == 1:
        yield from map(make, items)
        return
    # "spawn": a forked copy of a process that has threads (torch's, OpenCV's) can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        yield from pool.map(make, items, chunksize=8)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the pool
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        _exit(1)
