"""`lorbms-fast profile`: where an iteration's time goes, on this machine."""

from pathlib import Path
from typing import Literal

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.commands.tables import print_table
from lorbms_fast.config import Count, Impl, Precision, preset_named
from lorbms_fast.devices import device_named
from lorbms_fast.engine.precision import chosen_precision
from lorbms_fast.errors import UserError
from lorbms_fast.measurement.machine import machine
from lorbms_fast.measurement.profiled import launched, profiled
from lorbms_fast.measurement.step import captured_step, step
from lorbms_fast.progress import at_work


def profile(
    *,
    out: Path = Path("profile.json"),
    preset: str = "thesis",
    batch_size: Count = 12,
    iterations: Count = 2,
    device: str = "auto",
    graphs: Literal["on", "off"] = "on",
    impl: Impl = "fast",
    precision: Precision | Literal["auto"] = "auto",
    top: Count = 10,
) -> None:
    """Run some iterations under torch's profiler: a trace to look at, and a table of the operations that took longest.

    Open the trace in a browser at chrome://tracing or ui.perfetto.dev. `lorbms-fast plan --measured` compares one of a
    GPU with what was predicted, launch by launch.

    Args:
        out: File for the trace.
        preset: Preset whose model runs: thesis or demo.
        batch_size: Reference images an iteration.
        iterations: Number of iterations to trace, after those that warm up.
        device: cpu, cuda, cuda:1, or auto for a GPU if there is one.
        graphs: On a GPU, replay the fast iteration as a CUDA graph, or not.
        impl: Form of the networks: fast or reference.
        precision: Arithmetic of convolutions and matrix products; auto is float32 on a CPU, bfloat16 on a GPU,
            float16 before Ampere.
        top: Lines of the table.
    """
    if out.is_dir():  # what follows takes a minute
        raise UserError(f"{out} is a folder: name a file for the trace")
    model = preset_named(preset).model
    where = device_named(device)
    arithmetic = chosen_precision(precision, where)
    on_gpu = where.type == "cuda"
    as_graph = on_gpu and graphs == "on" and impl == "fast"
    if as_graph:
        one_iteration = captured_step(model, batch_size, arithmetic, where)
        one_iteration()  # warms up and records
    else:
        one_iteration = step(impl, model, batch_size, arithmetic, where)
    note = {"preset": preset, "batch_size": batch_size, "precision": arithmetic}
    with at_work("profiling: about a minute on a CPU"):
        seen, found = profiled(one_iteration, where, iterations, note)
    if on_gpu and not seen:
        raise UserError(
            f"torch's profiler saw nothing of {where}: CUPTI is not permitted here, or another profiler has it, as its "
            "own messages say; lorbms-fast bench step takes times without it"
        )
    with atomic_write(out) as partial:
        found.export_chrome_trace(str(partial))
    whole = sum(one.microseconds for one in seen)
    form = f"{impl}, as a graph" if as_graph else impl
    kernels = f" and {launched(seen) / iterations:,.0f} kernels" if on_gpu else ""
    title = f"{preset} model, batch {batch_size}, {arithmetic}, {form}"
    took = f"an iteration of {whole / iterations / 1e3:,.1f} ms{kernels}"
    rows = []
    for one in seen[:top]:
        each = one.microseconds / iterations / 1e3
        rows.append([one.name, f"{one.count / iterations:,.0f}", f"{each:,.2f}", f"{one.microseconds / whole:.1%}"])
    print_table(["operation", "times", "ms", "share"], rows, f"{title}: {took} (measured, {machine()})", numbers=3)
    print(f"trace: {out.resolve()}")
