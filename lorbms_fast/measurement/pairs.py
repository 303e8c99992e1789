"""Times of several ways to do the same work, taken in turns so that a busy machine slows all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from lorbms_fast.progress import tqdm


@dataclass(frozen=True)
class Pair:
    """Seconds of each round, A B A B."""

    a: list[float]
    b: list[float]

    @property
    def median_a(self) -> float:
        """Median of A in seconds."""
        return median(self.a)

    @property
    def median_b(self) -> float:
        """Median of B in seconds."""
        return median(self.b)

    @property
    def ratio(self) -> float:
        """How many times faster B is: the median of the rounds' own ratios."""
        return median(a / b for a, b in zip(self.a, self.b, strict=True))


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call, waiting for the GPU where there is one."""
    _synchronise()
    start = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - start


def in_turns(works: Sequence[Callable[[], object]], rounds: int, warm_up: int = 1) -> list[list[float]]:
    """Call each of several in every round: the seconds of each, round by round.

    Args:
        works: what is compared.
        rounds: timed calls of each.
        warm_up: calls of each before.
    """
    turns = tqdm(range(warm_up + rounds), unit="round", desc="in turns")
    rows = [[seconds(work) for work in works] for _ in turns][warm_up:]
    return [list(times) for times in zip(*rows, strict=True)]


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
