"""One replay under the profiler: its kernels by name, counted and timed beside what was predicted of them."""

import gzip
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import torch

from bench.gpu.findings import Findings
from bench.gpu.setting import Setting
from lorbms_fast.config import Precision
from lorbms_fast.measurement.gpus import GPUS, gpu_called
from lorbms_fast.measurement.plan import count_iteration
from lorbms_fast.measurement.profiled import profiled
from lorbms_fast.measurement.step import captured
from lorbms_fast.measurement.traces import OTHERS, Trace, compare, read_trace

TOP = 25
"""torch's own kernels that are shown, the longest first."""


def run(findings: Findings, setting: Setting) -> None:
    precision: Precision = "float32" if setting.rehearse else "bfloat16"
    one = setting.recording(captured(setting.model, setting.batch, precision, setting.device))
    one.iterate(range(2))
    numbers = count(2)
    note = {"preset": "thesis", "batch_size": setting.batch, "precision": precision}
    seen, profiler = profiled(lambda: one.iterate([next(numbers)]), setting.device, 1, note)
    file = _keep_trace(profiler, setting)
    iteration = count_iteration(setting.model, setting.batch, precision)
    ours = {operation.kernel for operation in iteration.ours}
    # A CPU runs no kernels: there, each was seen as often as predicted, in no time.
    of_rehearsal = Trace({"iterations": 1}, "", [(operation.kernel, 0.0) for operation in iteration.ours])
    trace = of_rehearsal if setting.rehearse else read_trace(file)
    gpu = gpu_called(trace.gpu) or next(gpu for gpu in GPUS if gpu.name == "H100")
    lines = compare(iteration, trace, gpu)
    for line in lines:
        predicted = f"{1e6 * line.expected.least:.0f} to {1e6 * line.expected.most:.0f}"
        cells: dict[str, Any] = {"launch": line.name, "predicted": line.predicted, "seen": line.seen}
        cells |= {"predicted, us": predicted, "measured, us": 1e6 * line.measured}
        findings.row(f"Launches, predicted for {gpu.name}", **cells)
    others = [kernel for kernel in seen if kernel.name not in ours]
    for kernel in others[:TOP]:
        cells = {"kernel": kernel.name[:80], "seen": kernel.count, "measured, us": kernel.microseconds}
        findings.row(f"The longest of {len(others)} other kernels", **cells)
    whole = sum(line.measured for line in lines)
    seen_of_ours = sum(line.seen for line in lines if line.name != OTHERS)
    findings.note(f"launches of ours predicted: {len(iteration.ours)}, seen: {seen_of_ours:g}")
    findings.note(f"kernels took {1e3 * whole:.2f} ms of the device, on {trace.gpu or 'no GPU'}")


def _keep_trace(profiler: torch.profiler.profile, setting: Setting) -> Path:
    """Write a trace for ui.perfetto.dev and `lorbms-fast plan --measured`; returns its file."""
    file = setting.out / "replay.json.gz"
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(plain))
        file.write_bytes(gzip.compress(plain.read_bytes(), 6))
    return file
