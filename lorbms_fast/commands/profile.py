"""`lorbms-fast profile`: where an iteration's time goes, on this machine."""

from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.config import Impl, Precision, preset_named
from lorbms_fast.engine.precision import chosen_precision
from lorbms_fast.errors import UserError
from lorbms_fast.measurement.machine import machine
from lorbms_fast.measurement.step import step


def profile(
    *,
    out: Path = Path("profile.json"),
    preset: str = "thesis",
    batch_size: int = 12,
    iterations: int = 2,
    impl: Impl = "fast",
    precision: Precision | None = None,
    top: int = 10,
) -> None:
    """Run some iterations under torch's profiler: a trace to look at, and a table of the operations that took longest.

    Open the trace in a browser at chrome://tracing or ui.perfetto.dev.

    Args:
        out: File for the trace.
        preset: Preset whose model runs: thesis or demo.
        batch_size: Reference images an iteration.
        iterations: Number of iterations to trace, after one that warms up.
        impl: Form of the networks: fast or reference.
        precision: Arithmetic of convolutions and matrix products; by default as in training.
        top: Lines of the table.
    """
    model = preset_named(preset).model
    if min(batch_size, iterations, top) < 1:
        raise UserError(f"--batch-size {batch_size} --iterations {iterations} --top {top}: use 1 or more of each")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    arithmetic = chosen_precision(precision or "auto", device)
    one_iteration = step(impl, model, batch_size, arithmetic, device)
    one_iteration()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profiler(activities=activities) as found:
        for _ in range(iterations):
            one_iteration()
    with atomic_write(out) as partial:
        found.export_chrome_trace(str(partial))
    events = slowest(list(found.key_averages()), device)
    whole = sum(_own(event, device) for event in events)
    title = (
        f"{preset} model, batch {batch_size}, {arithmetic}, {impl}: an iteration of {whole / iterations / 1e3:,.1f} ms"
    )
    table = Table("operation", title=f"{title} (measured, {machine()})")
    for column in ("times", "ms", "share"):
        table.add_column(column, justify="right")
    for event in events[:top]:
        own = _own(event, device)
        table.add_row(
            event.key, f"{event.count / iterations:,.0f}", f"{own / iterations / 1e3:,.2f}", f"{own / whole:.1%}"
        )
    Console().print(table)
    print(f"trace: {out}")


def slowest(events: list[FunctionEventAvg], device: torch.device) -> list[FunctionEventAvg]:
    """Sort the events that took time themselves on the device, the longest first."""
    there = [event for event in events if event.device_type.name == device.type.upper() and _own(event, device) > 0]
    return sorted(there, key=lambda event: -_own(event, device))


def _own(event: FunctionEventAvg, device: torch.device) -> float:
    """Microseconds in the operation itself, without those it called."""
    own: float = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
    return own
