"""Traces of a profiler: what a GPU has run, launch by launch, beside what was predicted of each."""

import gzip
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorbms_fast.errors import UserError
from lorbms_fast.measurement.gpus import Gpu
from lorbms_fast.measurement.plan import Iteration, Operation, Range
from lorbms_fast.measurement.profiled import NOTED

SETTINGS = {"preset": str, "batch_size": int, "precision": str, "iterations": int}
"""Settings that `profile` and the kit note of the iterations that ran."""
OTHERS = "all of torch's"


@dataclass(frozen=True)
class Trace:
    """Kernels in the order in which they began."""

    settings: dict[str, Any]
    """Settings named as `SETTINGS` are."""
    gpu: str
    kernels: list[tuple[str, float]]
    """Name, and seconds; copies and fills of memory among them."""


@dataclass(frozen=True)
class Line:
    """One kind of launch, at one shape where they can be told apart."""

    name: str
    predicted: int
    """Launches an iteration."""
    seen: float
    expected: Range
    """Seconds of all of them in an iteration."""
    measured: float


def read_trace(file: Path) -> Trace:
    """Read what `lorbms-fast profile` or `python -m bench.gpu` wrote on a GPU; UserError where it is no such file."""
    try:
        raw = file.read_bytes()
        found = json.loads(gzip.decompress(raw) if file.suffix == ".gz" else raw)
        events, settings = found["traceEvents"], found.get(NOTED)
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError(f"{file} is no trace of a profiler ({error}): lorbms-fast profile writes one") from None
    if not (isinstance(settings, dict) and all(isinstance(settings.get(key), of) for key, of in SETTINGS.items())):
        raise UserError(f"{file} does not say what ran: make it anew with  lorbms-fast profile")
    ran = [event for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    if not ran:
        raise UserError(
            f"{file} has no kernels of a GPU, and only these are predicted: lorbms-fast profile --device cuda makes one"
        )
    devices = found.get("deviceProperties") or [{}]
    kernels = [(event["name"], event["dur"] * 1e-6) for event in sorted(ran, key=lambda event: event["ts"])]
    return Trace(settings, str(devices[0].get("name", "")), kernels)


def compare(iteration: Iteration, trace: Trace, gpu: Gpu) -> list[Line]:
    """Lines of our kernels, the slowest first, then one of all others.

    Where a kernel ran as often as predicted, its launches are told apart by their order; else all are one line.
    """
    iterations = trace.settings["iterations"]
    ours = _by(iteration.ours, lambda operation: operation.kernel)
    ran = _by(trace.kernels, lambda kernel: kernel[0])
    lines: list[Line] = []
    for kernel, operations in ours.items():
        times = [seconds for _, seconds in ran.pop(kernel, [])]
        lines += _lines(kernel, operations, times, iterations, gpu)
    lines.sort(key=lambda line: -line.measured)
    others = [seconds for kernels in ran.values() for _, seconds in kernels]
    return [*lines, _line(OTHERS, iteration.torchs, others, iterations, gpu)]


def _lines(
    kernel: str, operations: Sequence[Operation], times: Sequence[float], iterations: int, gpu: Gpu
) -> Iterator[Line]:
    if len(times) != iterations * len(operations):
        yield _line(kernel, operations, times, iterations, gpu)
        return
    shapes: dict[str, list[float]] = defaultdict(list)
    for number, seconds in enumerate(times):
        shapes[operations[number % len(operations)].name].append(seconds)
    of_shape = _by(operations, lambda operation: operation.name)
    for name, seconds_of_shape in shapes.items():
        yield _line(name, of_shape[name], seconds_of_shape, iterations, gpu)


def _line(name: str, operations: Sequence[Operation], times: Sequence[float], iterations: int, gpu: Gpu) -> Line:
    expected = sum((operation.seconds(gpu) for operation in operations), Range(0, 0))
    return Line(name, len(operations), len(times) / iterations, expected, sum(times) / iterations)


def _by(items: Sequence[Any], key: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return found
