"""An iteration in a process of its own: its memory is neither scattered by another's nor counted with it."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from lorbms_fast.config import Impl, ModelConfig, Precision
from lorbms_fast.measurement.counts import Counts, count
from lorbms_fast.measurement.pairs import paired
from lorbms_fast.measurement.proc import bytes_told
from lorbms_fast.measurement.step import step

_one_iteration: Callable[[], object]


@dataclass(frozen=True)
class Apart:
    """The process."""

    _process: ProcessPoolExecutor

    def __call__(self) -> None:
        """Do one iteration."""
        self._process.submit(_iterate).result()

    def count(self) -> Counts:
        """Operations, arithmetic and bytes of one more iteration."""
        return self._process.submit(_count).result()

    def peak_memory(self) -> float:
        """Gigabytes (10^9) that the process held at most until now, the interpreter and libraries included."""
        # Not getrusage: its maximum is inherited from the parent process.
        return self._process.submit(bytes_told, "VmHWM").result() / 1e9


@contextmanager
def apart(impl: Impl, model: ModelConfig, batch_size: int, arithmetic: Precision = "float32") -> Iterator[Apart]:
    """`step` in a fresh process, which ends with the block."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(_make, impl, model, batch_size, arithmetic).result()
        yield Apart(process)


def compare_steps(model: ModelConfig, batch_size: int, rounds: int, arithmetic: Precision) -> dict[str, Any]:
    """Reference (float32) and fast iterations in turns: medians in seconds, their ratio, counts and peak memory."""
    settings = model, batch_size
    with apart("reference", *settings) as reference, apart("fast", *settings, arithmetic) as fast:
        pair = paired(reference, fast, rounds)
        forms = {
            name: {"seconds": seconds, "peak_memory_gb": form.peak_memory(), **asdict(form.count())}
            for name, form, seconds in (("reference", reference, pair.median_a), ("fast", fast, pair.median_b))
        }
    return {"ratio": pair.ratio, "rounds": rounds, **forms}


def _make(impl: Impl, model: ModelConfig, batch_size: int, arithmetic: Precision) -> None:
    global _one_iteration
    _one_iteration = step(impl, model, batch_size, arithmetic)


def _iterate() -> None:
    _one_iteration()


def _count() -> Counts:
    return count(_one_iteration)
