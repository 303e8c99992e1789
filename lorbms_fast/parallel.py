"""A map over several processes, with results in the items' order."""

import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from types import ModuleType
from typing import TypeVar

import cv2

from lorbms_fast.errors import UserError
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.progress import tqdm
from lorbms_fast.worker import end_with_parent

KEPT = 256 << 20
"""Max. freed bytes that a worker keeps for its next pictures."""

S = TypeVar("S")
T = TypeVar("T")


def ordered_map(
    make: Callable[[S], T],
    items: Sequence[S],
    workers: int,
    description: str,
    images: Callable[[S], int] = lambda item: 1,
) -> Generator[T, None, None]:
    """Yield `make` of each item in the items' order, made by `workers` processes, under a progress bar.

    `make` and the items must be picklable when there are several workers. `make` is sent along with every few items,
    so what is large belongs into the items. An exception of `make` is raised here. One worker is this process; `images`
    counts those that an item stands for, and items of more than one are sent out one by one. Raises UserError if a
    worker died.

    >>> list(ordered_map(len, ["a", "bcd"], workers=1, description="counting"))
    [1, 3]
    """
    counts = [images(item) for item in items]
    at_once = 8 if max(counts, default=1) == 1 else 1
    with tqdm(total=sum(counts), desc=description, unit=" images", disable=not items) as bar:
        for made, count in zip(_made(make, items, workers, at_once), counts, strict=True):
            bar.update(count)
            yield made


def _made(make: Callable[[S], T], items: Sequence[S], workers: int, at_once: int) -> Iterator[T]:
    if workers == 1:
        yield from map(make, items)
        return
    # "spawn": a forked copy of a process that has threads (torch's, OpenCV's) can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        with _no_main_module():
            results = pool.map(make, items, chunksize=at_once)
        try:
            yield from results
        except BrokenProcessPool as error:
            raise UserError(
                f"one of {workers} workers was ended from outside, for want of memory perhaps: "
                "run the same command again, with fewer --workers"
            ) from error


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep processes that are started inside the block from importing the program that was run.

    They need nothing of it: a script of a user's might go off again in each, and a command's options take a while to
    import.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def decode_alone() -> None:
    """Keep OpenCV in this process, one of many that decode, to a thread, and freed memory for the next pictures."""
    cv2.setNumThreads(1)
    retain_freed_memory(KEPT)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the pool
    decode_alone()
    end_with_parent()
