"""The forms of an operation at a shape, judged: right or not by the definition's own error, and how fast."""

import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from lorbms_fast.engine.cuda_graph import CudaGraphs
from lorbms_fast.engine.first_use.calls import Call
from lorbms_fast.errors import origin, said
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.kernels._common.operation import TRITON, variants_of

TIMES = 4
"""How many times the definition's own error a form may have; or one part in 2^p where the definition has next to none,
p the bits of the result's mantissa."""
DRAWS = 8
"""Inputs that decide where a result is out with the first: the definition's error of a single number is a quarter of
another's by luck one time in six, and so is that of a few maxima, which rounding finds in other places."""
REPEATED, REPLAYS = 5, 10
CACHE = 256 << 20
"""Bytes that are written before each replay: more than any second-level cache."""

PASSING = (OSError, MemoryError, torch.OutOfMemoryError)
"""Errors that say nothing of a kernel."""

Timer = Callable[[Callable[[], object], torch.device], float]
"""Function that takes the time of some work, in milliseconds."""


class Error(NamedTuple):
    """A result's relative errors against the definition in float64."""

    found: float
    own: float
    """Of the definition in the form's arithmetic."""
    rounding: float
    """One unit in the last place."""


class Errors(NamedTuple):
    """Relative errors of outputs and gradients, the worst."""

    found: float
    own: float
    wrong: str | None
    """The first result whose error is more than the definition's allows."""


def errors_of(found: Sequence[Tensor], own: Sequence[Tensor], exact: Sequence[Tensor]) -> list[Error]:
    """Compare a form's results with the exact ones, beside those that the definition has in the same arithmetic."""
    scale = max(e.double().norm().item() / max(e.numel(), 1) ** 0.5 for e in exact)
    errors = []
    for f, o, e in zip(found, own, exact, strict=True):
        # Gradients that are 0 but for rounding (biases under a norm) are measured against all others.
        typical = max(e.double().norm().item(), 1e-2 * scale * e.numel() ** 0.5) or 1.0
        rounding = torch.finfo(f.dtype).eps if f.is_floating_point() else 0.0
        errors.append(Error(_apart(f, e) / typical, _apart(o, e) / typical, rounding))
    return errors


def judged(draws: Iterator[list[Error]]) -> Errors:
    """Judge a form by the errors of its results with drawn inputs: the first, and all others if one is out there."""
    first = next(draws)
    errors = _judged(first)
    return errors if errors.wrong is None else _judged(list(map(_typical, zip(first, *draws, strict=True))))


def _judged(errors: Sequence[Error]) -> Errors:
    wrong = None
    for number, (found, own, rounding) in enumerate(errors):
        # The definition itself may have no number there: eps may be 0 in half precision. A NaN is not less than any.
        if not math.isnan(own) and not found <= max(TIMES * own, rounding):
            wrong = f"result {number} is {found:.1e} off, the definition {own:.1e}"
            break
    return Errors(_worst([error.found for error in errors]), _worst([error.own for error in errors]), wrong)


def _typical(draws: tuple[Error, ...]) -> Error:
    """Root mean squares of a result's errors, where the definition has a number."""
    known = [error for error in draws if math.isfinite(error.own)] or draws
    return Error(*(math.sqrt(sum(x * x for x in each) / len(each)) for each in zip(*known, strict=True)))


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm())


def _worst(errors: list[float]) -> float:
    return max(errors, key=lambda error: (error != error, error))


@dataclass
class Verdict:
    """A verdict on an operation's forms at a shape."""

    own: float = 0.0
    """Error of the definition, in the same arithmetic."""
    errors: dict[str, float] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    """Forward and backward."""
    failures: dict[str, str] = field(default_factory=dict)
    """Faults of a form."""
    passing: bool = False
    """Something of the machine as it was then came in between, such as memory or a disk that was full."""

    def best(self, at_any_price: bool = False) -> str:
        """Name the fastest form that is right; `at_any_price` one that is a kernel of ours if any is right."""
        right = [form for form in self.errors if form not in self.failures]
        ours = [form for form in right if form != "fused"]
        chosen = ours if at_any_price and ours else right or ["fused"]
        return min(chosen, key=lambda form: self.milliseconds.get(form, math.inf))

    def fail(self, form: str, how: str, error: BaseException) -> None:
        """Note an error of a form; the first one counts."""
        self.failures.setdefault(form, f"{how} ({said(error)})")
        self.passing |= isinstance(origin(error), PASSING)

    def times_fused(self, form: str) -> float | None:
        """Compute how many times as fast as the fused form another is."""
        if not {form, "fused"} <= self.milliseconds.keys():
            return None
        return self.milliseconds["fused"] / self.milliseconds[form]


def judge(calls: Sequence[Call], device: torch.device, timer: Timer | None = None) -> Verdict:
    """Check each form of an operation at each of some calls, of different batches; take its time at the largest."""
    verdict = Verdict()
    by_size = sorted(calls, key=lambda call: (call.differentiated, call.batch))
    for call in by_size:
        try:
            _check(call, device, verdict)
        except torch.OutOfMemoryError as error:  # in the definition, which takes most
            if not verdict.errors:
                verdict.fail(TRITON, "cannot be checked", error)
            break
    call = by_size[-1]
    tensors = call.drawn(device)
    for form in verdict.errors:
        try:
            verdict.milliseconds[form] = (timer or milliseconds)(_again(call, tensors, form), device)
        except torch.OutOfMemoryError:
            continue
        except Exception as error:
            _leave_if_lost(device)
            verdict.fail(form, "runs in no graph", error)
    return verdict


def _check(call: Call, device: torch.device, verdict: Verdict) -> None:
    """Add to a verdict what is found at one call."""
    first = _defined(call, device, 0)
    for form in ["fused", *_kernels(call, first.tensors)]:
        try:
            errors = judged(_draws(call, device, form, first))
        except FormError as error:
            _leave_if_lost(device)
            verdict.fail(form, "failed", error.of)
            continue
        verdict.own = _worst([verdict.own, errors.own])
        verdict.errors[form] = _worst([verdict.errors.get(form, 0.0), errors.found])
        if errors.wrong is not None:
            verdict.failures.setdefault(form, f"is wrong ({errors.wrong})")


class FormError(Exception):
    """A form's own error, not one of the definition that it is compared with."""

    def __init__(self, of: Exception) -> None:
        self.of = of


def _draws(call: Call, device: torch.device, form: str, first: "Defined") -> Iterator[list[Error]]:
    for number in range(DRAWS):
        defined = _defined(call, device, number) if number else first
        try:
            found = call.run(call.leaves(defined.tensors), form, draw=number)
        except Exception as error:
            raise FormError(error) from error
        yield errors_of(found, defined.own, defined.exact)


class Defined(NamedTuple):
    """Drawn inputs of a call, and the definition's results in float64 and in the call's arithmetic."""

    tensors: list[Tensor]
    exact: list[Tensor]
    own: list[Tensor]


def _defined(call: Call, device: torch.device, draw: int) -> Defined:
    tensors = call.drawn(device, draw)
    exact = call.run(call.leaves(tensors, exact=True), "reference", exact=True, draw=draw)
    return Defined(tensors, exact, call.run(call.leaves(tensors), "reference", draw=draw))


def launch(calls: Sequence[Call], device: torch.device) -> None:
    """Run the kernels of some calls once, so that they are compiled; what goes wrong, `judge` will tell."""
    for call in calls:
        tensors = call.drawn(device)
        for form in _kernels(call, tensors):
            try:
                call.run(call.leaves(tensors), form)
            except Exception:
                _leave_if_lost(device)


def _kernels(call: Call, tensors: Sequence[Tensor]) -> list[str]:
    """List the forms that run kernels of ours here."""
    if not dispatch.kernels_run_on(tensors[0].device):
        return []
    return variants_of(call.operation.__name__, *call.made(tensors, "fused"))


def _again(call: Call, tensors: Sequence[Tensor], form: str) -> Callable[[], object]:
    """Prepare a call to be repeated on the same memory."""
    leaves, probes = call.leaves(tensors), list[Tensor]()
    call.run(leaves, form, probes=probes)
    return lambda: call.run(leaves, form, probes=probes)


def _leave_if_lost(device: torch.device) -> None:
    """End this process if its GPU does nothing more after what a kernel did: whoever started it begins another."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        if multiprocessing.parent_process() is None:
            raise
        os._exit(1)


def milliseconds(work: Callable[[], object], device: torch.device, replays: int = REPLAYS) -> float:
    """Median time of work on fixed memory; on a GPU between events around several in a graph, replayed so often."""
    if device.type == "cpu":
        began = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - began)

    def several() -> None:
        for _ in range(REPEATED):
            work()

    graphs = CudaGraphs(device)
    graphs.warm_up(several)
    replay = graphs.record(several)
    cache = torch.empty(CACHE, dtype=torch.uint8, device=device)
    times = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cache.zero_()  # meanwhile the host is ahead
        start.record()
        replay()
        end.record()
        times.append((start, end))
    torch.cuda.synchronize(device)
    return median(start.elapsed_time(end) for start, end in times) / REPEATED
