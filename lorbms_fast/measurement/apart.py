"""An iteration in a process of its own: its memory is neither scattered by another's nor counted with it."""

import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal, TypeVar

import torch

from lorbms_fast.config import Impl, Kernels, ModelConfig, Precision
from lorbms_fast.engine.first_use import IN_FORCE, tried
from lorbms_fast.errors import UserError
from lorbms_fast.kernels import use_impl
from lorbms_fast.measurement.counts import Counts, count
from lorbms_fast.measurement.pairs import Pair, in_turns, seconds
from lorbms_fast.measurement.proc import bytes_told
from lorbms_fast.measurement.profiled import launched, profiled
from lorbms_fast.measurement.step import CPU, captured_step, forms_of_an_iteration, step
from lorbms_fast.worker import end_with_parent

Form = Literal["reference", "compiled_reference", "fast", "captured"]
"""The reference as it is and under torch.compile; the fast form operation after operation and as a CUDA graph."""
PREPARING = 3
"""Iterations before the first that is timed: a graph's first warms up and records."""
PER_ROUND = {"cpu": 1, "cuda": 5}
"""Iterations that are timed together."""

T = TypeVar("T")

_one_iteration: Callable[[], object]
_device: torch.device


@dataclass(frozen=True)
class Apart:
    """A process that does iterations, and answers questions about them."""

    forms: dict[str, int]
    """Numbers of operations that first use gave each form, where kernels of ours run."""
    _process: ProcessPoolExecutor

    def __call__(self) -> None:
        """Do one iteration."""
        self.ask(_iterate)

    def ask(self, what: Callable[[], T]) -> T:
        """Find out in the process: `iteration_seconds`, `counted`, `launches` or `peak_memory`."""
        return _answer(self._process, what)


def _answer(process: ProcessPoolExecutor, what: Callable[..., T], *arguments: object) -> T:
    try:
        return process.submit(what, *arguments).result()
    except BrokenProcessPool as error:
        raise UserError(
            "an iteration's process ended without an answer: killed for want of memory (take a smaller --batch-size), "
            "or crashed"
        ) from error


@contextmanager
def apart(
    form: Form,
    model: ModelConfig,
    batch_size: int,
    arithmetic: Precision = "float32",
    device: torch.device = CPU,
    kernels: Kernels = "auto",
) -> Iterator[Apart]:
    """`step` or `captured_step` in a fresh process, which ends with the block."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent) as process:
        forms = _answer(process, _make, form, model, batch_size, arithmetic, device, kernels)
        yield Apart(forms, process)


def compare_steps(
    model: ModelConfig,
    batch_size: int,
    rounds: int,
    arithmetic: Precision,
    compiled_reference: bool = False,
    device: torch.device = CPU,
    graphs: bool = False,
    kernels: Kernels = "auto",
) -> dict[str, Any]:
    """Do iterations of each form in turns: medians in seconds, how many times faster the fast one is, counts, memory.

    A round is one iteration on a CPU and `PER_ROUND` on a GPU; the reference's arithmetic is float32 on a CPU, else the
    fast form's. With `compiled_reference`, torch.compile's is a second yardstick; with `graphs` ratios are the graph's.
    `kernels` are the forms of the fast form's operations on a GPU, as in training.
    """
    of_reference: Precision = "float32" if device.type == "cpu" else arithmetic
    wanted: dict[Form, Precision] = {"reference": of_reference, "fast": arithmetic}
    wanted |= {"compiled_reference": of_reference} if compiled_reference else {}
    wanted |= {"captured": arithmetic} if graphs else {}
    with ExitStack() as processes:
        forms = {
            form: processes.enter_context(apart(form, model, batch_size, of_form, device, kernels))
            for form, of_form in wanted.items()
        }
        if compiled_reference:  # before the turns: it takes minutes
            began = time.perf_counter()
            forms["compiled_reference"].ask(iteration_seconds)
            compiling = time.perf_counter() - began
        preparing = 1 if device.type == "cpu" else PREPARING
        rows = in_turns(list(forms.values()), rounds, preparing, measure=lambda form: form.ask(iteration_seconds))
        times = dict(zip(forms, rows, strict=True))
        found: dict[str, Any] = {
            name: {"seconds": median(times[name]), "peak_memory_gb": form.ask(peak_memory)}
            for name, form in forms.items()
        }
        for name in ("reference", "fast"):  # what is compiled or captured does not show its operations
            found[name] |= asdict(forms[name].ask(counted))
        if device.type == "cuda":
            for name, form in forms.items():
                if seen := form.ask(launches):  # none where the profiler may not look at the GPU: torch warns only
                    found[name]["launches"] = seen
                found[name] |= {"forms": form.forms} if form.forms else {}
    best: Form = "captured" if graphs else "fast"
    ratios = {"ratio": Pair(times["reference"], times[best]).ratio}
    if compiled_reference:
        ratios["ratio_to_compiled"] = Pair(times["compiled_reference"], times[best]).ratio
        found["compiled_reference"]["compiling_seconds"] = compiling
    return {**ratios, "rounds": rounds, **found}


def _make(
    form: Form, model: ModelConfig, batch_size: int, arithmetic: Precision, device: torch.device, kernels: Kernels
) -> dict[str, int]:
    global _one_iteration, _device
    _device = device
    if device.type == "cuda":
        torch.cuda.set_device(device)
    forms = Counter[str]()
    of_first_use = tried(kernels, device) if form in ("fast", "captured") else None
    if of_first_use is not None:
        found = forms_of_an_iteration(model, batch_size, arithmetic, device, of_first_use)
        forms.update(row.form for row in found.rows)
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if form == "captured":
        _one_iteration = captured_step(model, batch_size, arithmetic, device)
    else:
        impl: Impl = "fast" if form == "fast" else "reference"
        compiled = form == "compiled_reference"
        _one_iteration = step(impl, model, batch_size, arithmetic, device, compiled)
    _one_iteration = use_impl(IN_FORCE[kernels])(_one_iteration)
    return dict(forms)


def _iterate() -> None:
    _one_iteration()


def iteration_seconds() -> float:
    """Do an iteration, or a few on a GPU; returns the seconds of one."""
    several = PER_ROUND[_device.type]

    def work() -> None:
        for _ in range(several):
            _one_iteration()

    return seconds(work, _device) / several


def counted() -> Counts:
    """Count operations, arithmetic and bytes of one more iteration."""
    return count(_one_iteration)


def launches() -> int:
    """Count the kernels that a GPU runs in one more iteration, by the profiler."""
    return launched(profiled(_one_iteration, _device)[0])


def peak_memory() -> float:
    """Gigabytes (10^9) held at most until now: of the process with interpreter and libraries, or of the GPU."""
    if _device.type == "cuda":
        return torch.cuda.max_memory_reserved(_device) / 1e9
    return bytes_told("VmHWM") / 1e9  # not getrusage: its maximum is inherited from the parent process
