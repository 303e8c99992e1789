"""One replay under the profiler: its kernels by name, counted and timed, beside what was predicted of them."""

import gzip
import shutil
import tempfile
from collections import Counter
from itertools import count
from pathlib import Path

import torch

from bench.gpu.findings import Findings
from bench.gpu.setting import Setting
from bench.gpu.tape import Tape
from lorbms_fast.engine.cuda_graph import CudaGraphs
from lorbms_fast.measurement.gpus import GPUS
from lorbms_fast.measurement.launches import Launch, TorchOperations, recorded
from lorbms_fast.measurement.profiled import Seen, launched, profiled
from lorbms_fast.measurement.step import captured, step
from lorbms_fast.measurement.work import arithmetic, work

TOP = 25
"""torch's own kernels that are shown, the longest first."""


def run(findings: Findings, setting: Setting) -> None:
    """Profile, predict, compare."""
    n, precision = setting.batch, "float32" if setting.rehearse else "bfloat16"
    one = captured(setting.model, n, precision, setting.device)  # type: ignore[arg-type]
    one.iteration.recorder = Tape(one.state) if setting.rehearse else CudaGraphs(setting.device)
    numbers = count()

    def iterate() -> None:
        number = next(numbers)
        one.iteration(number, range(number, number + 1))

    for _ in range(3):
        iterate()
    seen, profiler = profiled(iterate, setting.device)
    _keep_trace(profiler, setting)
    launches, operations = _predicted(setting, n, precision)
    of_ours = {launch.kernel.__name__ for launch in launches}
    _compare(findings, seen, launches)
    others = [kernel for kernel in seen if kernel.name not in of_ours]
    for kernel in others[:TOP]:
        cells = {"kernel": kernel.name[:80], "seen": kernel.count, "measured, us": kernel.microseconds}
        findings.row(f"The longest of {len(others)} other kernels", **cells)
    findings.note(f"launches predicted: {len(launches)} of ours and at least {operations} of torch's")
    findings.note(f"launches seen: {launched(seen) - launched(others)} of ours and {launched(others)} others")
    findings.note(f"kernels took {sum(kernel.microseconds for kernel in seen) / 1e3:.2f} ms of the device")


def _keep_trace(profiler: torch.profiler.profile, setting: Setting) -> None:
    """Write a trace for ui.perfetto.dev."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(plain))
        with plain.open("rb") as source, gzip.open(setting.out / "replay.json.gz", "wb") as target:
            shutil.copyfileobj(source, target)


def _predicted(setting: Setting, n: int, precision: str) -> tuple[list[Launch], int]:
    """Launches of ours in an iteration, and how many operations torch does besides; counted on the CPU."""
    iterate = step("fast", setting.model, n, precision)  # type: ignore[arg-type]
    with recorded():
        iterate()  # the first makes the optimizers' state
    with recorded() as launches, TorchOperations() as operations:
        iterate()
    return launches, operations.count


def _compare(findings: Findings, seen: list[Seen], launches: list[Launch]) -> None:
    present = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    gpu = next((gpu for gpu in GPUS if gpu.name in present), None)
    bounds: Counter[str] = Counter()
    for launch in launches:
        bound = gpu.roofline(work(launch), launch.programs, arithmetic(launch)) if gpu else 0.0
        bounds[launch.kernel.__name__] += bound  # type: ignore[assignment]
    found = {kernel.name: kernel for kernel in seen}
    expected = Counter(launch.kernel.__name__ for launch in launches)
    operations = {launch.kernel.__name__: launch.name.partition(".")[0] for launch in launches}
    shared = Counter(name for name, _ in {(launch.kernel.__name__, launch.name) for launch in launches})
    for name, number in expected.most_common():
        kernel = found.get(name)
        of = operations[name] if shared[name] == 1 else f"{shared[name]} operations"
        cells = {"kernel": name, "of": of, "predicted": number, "seen": kernel.count if kernel else 0}
        times = {"at least, us": 1e6 * bounds[name] if gpu else None}
        findings.row("Our kernels", **cells, **times, **{"measured, us": kernel.microseconds if kernel else None})
