"""The work of a device for a piece of a program, as torch's profiler saw it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, profile

NOTED = "lorbms_fast"
"""Key of a trace under which it says what ran."""


@dataclass(frozen=True)
class Seen:
    """One kernel of a GPU, or one operation of a CPU, in all its runs."""

    name: str
    count: int
    microseconds: float
    """In itself, without what it called."""


def profiled(
    work: Callable[[], object], device: torch.device, times: int = 1, note: dict[str, Any] | None = None
) -> tuple[list[Seen], profile]:
    """Do the work under the profiler, after once without, so that nothing is compiled inside.

    Returns a device's kernels, or operations, that took time, the longest first, and the profiler, which can write a
    trace. That says what ran: `note`, as `traces.SETTINGS`, and how often.
    """
    work()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as found:
        if note is not None:
            found.add_metadata_json(NOTED, json.dumps({**note, "iterations": times}))
        for _ in range(times):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return slowest(list(found.key_averages()), device), found


def slowest(events: list[FunctionEventAvg], device: torch.device) -> list[Seen]:
    """Take the events of a device that took time themselves, the longest first.

    Spans that a GPU was busy for a part of the program, such as an optimizer's step, are no work beside that in them.
    """
    there = [event for event in events if event.device_type.name == device.type.upper() and _own(event, device) > 0]
    if device.type == "cuda":
        there = [event for event in there if not event.is_user_annotation]
    return [Seen(str(e.key), e.count, _own(e, device)) for e in sorted(there, key=lambda event: -_own(event, device))]


def launched(seen: list[Seen]) -> int:
    """Count the kernels among what a GPU did, without its copying and filling of memory."""
    return sum(one.count for one in seen if not one.name.startswith(("Memcpy", "Memset")))


def _own(event: FunctionEventAvg, device: torch.device) -> float:
    return event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
