"""Values that are computed before they are asked for."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Function of a number whose values for the next numbers are computed in the background.

    Any number may be asked for, by any thread or forked process; only consecutive ones are fast.

    >>> squared = Prefetcher(lambda number: number**2, ahead=2)
    >>> [squared(number) for number in (0, 1, 2, 7)]
    [0, 1, 4, 49]
    """

    def __init__(self, make: Callable[[int], T], ahead: int) -> None:
        self._make, self._ahead = make, ahead
        self._of_process: dict[int, _Coming[T]] = {}

    def __call__(self, number: int) -> T:
        """Return `make(number)`; an exception of it is raised here."""
        process = os.getpid()
        if process not in self._of_process:  # a forked one has none of its parent's threads, and maybe its locks held
            self._of_process.setdefault(process, _Coming(self._make, self._ahead))  # the first of several is for all
        return self._of_process[process].result(number)


class _Coming(Generic[T]):
    """What the threads of one process make."""

    def __init__(self, make: Callable[[int], T], ahead: int) -> None:
        self._make, self._ahead = make, ahead
        self._pool = ThreadPoolExecutor(ahead)
        self._coming: dict[int, Future[T]] = {}
        self._turn = Lock()

    def result(self, number: int) -> T:
        with self._turn:
            self._expect(range(number, number + self._ahead + 1))
            coming = self._coming.pop(number)
        return coming.result()

    def _expect(self, numbers: range) -> None:
        for number in self._coming.keys() - set(numbers):
            self._coming.pop(number).cancel()
        for number in numbers:
            if number not in self._coming:
                self._coming[number] = self._pool.submit(self._make, number)


def ahead(make: Callable[[S], T], items: Iterable[S], workers: int = 2) -> Iterator[T]:
    """Yield `make` of each item in order, made by threads while the caller works on those before.

    >>> list(ahead(lambda x: x * x, [1, 2, 3]))
    [1, 4, 9]
    """
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[T]] = []
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
