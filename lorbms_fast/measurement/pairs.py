"""Times of several ways to do the same work, taken in turns so that a busy machine slows all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch

from lorbms_fast.progress import tqdm

Work = TypeVar("Work", bound=Callable[[], object])


@dataclass(frozen=True)
class Pair:
    """Seconds of each round, A B A B."""

    a: list[float]
    b: list[float]

    @property
    def ratio(self) -> float:
        """Times that B is faster: the median of the rounds' own ratios."""
        return median(self._ratios)

    @property
    def middle_half(self) -> tuple[float, float]:
        """Between which the middle half of the rounds' own ratios are."""
        outside = len(self.a) // 4
        return self._ratios[outside], self._ratios[-1 - outside]

    @property
    def _ratios(self) -> list[float]:
        return sorted(a / b for a, b in zip(self.a, self.b, strict=True))


def seconds(work: Callable[[], object], device: torch.device | None = None) -> float:
    """Time one call: on a GPU, the default where there is one, between two events of its own, on a CPU by the clock."""
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type != "cuda":
        began = time.perf_counter()
        work()
        return time.perf_counter() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def in_turns(
    works: Sequence[Work], rounds: int, warm_up: int = 1, measure: Callable[[Work], float] = seconds
) -> list[list[float]]:
    """Call each of several in every round, a few unmeasured ones before: the seconds of each, round by round."""
    turns = tqdm(range(warm_up + rounds), unit="round", desc="in turns")
    rows = [[measure(work) for work in works] for _ in turns][warm_up:]
    return [list(times) for times in zip(*rows, strict=True)]
