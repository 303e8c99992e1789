"""An iteration in a process of its own: its memory is neither scattered by another's nor counted with it."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from lorbms_fast.config import Impl, ModelConfig, Precision
from lorbms_fast.measurement.counts import Counts, count
from lorbms_fast.measurement.pairs import Pair, in_turns
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
def apart(
    impl: Impl, model: ModelConfig, batch_size: int, arithmetic: Precision = "float32", compiled: bool = False
) -> Iterator[Apart]:
    """`step` in a fresh process, which ends with the block."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(_make, impl, model, batch_size, arithmetic, compiled).result()
        yield Apart(process)


def compare_steps(
    model: ModelConfig, batch_size: int, rounds: int, arithmetic: Precision, compiled_reference: bool = False
) -> dict[str, Any]:
    """Do iterations of each in turns: medians in seconds, how many times faster the fast one is, counts, peak memory.

    Args:
        model: sizes of the networks.
        batch_size: reference images.
        rounds: timed iterations of each.
        arithmetic: of the fast one; the reference's is float32.
        compiled_reference: take the reference under torch.compile for a second yardstick.
    """
    with ExitStack() as processes:
        forms = {
            "reference": processes.enter_context(apart("reference", model, batch_size)),
            "fast": processes.enter_context(apart("fast", model, batch_size, arithmetic)),
        }
        if compiled_reference:
            forms["compiled_reference"] = processes.enter_context(apart("reference", model, batch_size, compiled=True))
        times = dict(zip(forms, in_turns(list(forms.values()), rounds), strict=True))
        found: dict[str, Any] = {
            name: {"seconds": median(times[name]), "peak_memory_gb": form.peak_memory()} for name, form in forms.items()
        }
        for name in ("reference", "fast"):  # what is compiled does not show its operations
            found[name] |= asdict(forms[name].count())
    ratios = {"ratio": Pair(times["reference"], times["fast"]).ratio}
    if compiled_reference:
        ratios["ratio_to_compiled"] = Pair(times["compiled_reference"], times["fast"]).ratio
    return {**ratios, "rounds": rounds, **found}


def _make(impl: Impl, model: ModelConfig, batch_size: int, arithmetic: Precision, compiled: bool) -> None:
    global _one_iteration
    _one_iteration = step(impl, model, batch_size, arithmetic, compiled=compiled)


def _iterate() -> None:
    _one_iteration()


def _count() -> Counts:
    return count(_one_iteration)
