"""Work shared by several processes, its results in one order."""

import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process
from os import _exit
from typing import TypeVar

import cv2
from tqdm import tqdm

T = TypeVar("T")


def in_order(make: Callable[[int], T], count: int, workers: int, description: str) -> Generator[T, None, None]:
    """Yield `make(0)` .. `make(count - 1)` in this order, made by `workers` processes, under a progress bar.

    `make` must be picklable when there are several workers. An exception of `make` is raised here.
    """
    with tqdm(total=count, desc=description, unit=" images", disable=count == 0) as bar:
        for made in _made(make, count, workers):
            yield made
            bar.update()


def _made(make: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    if workers == 1:
        yield from map(make, range(count))
        return
    # "spawn": a forked copy of a process that has threads (torch's, OpenCV's) can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        yield from pool.map(make, range(count), chunksize=8)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the pool
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        _exit(1)
