"""`lorbms-fast plan`: how long training will take on a GPU, before there is one; and how well that was predicted."""

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from lorbms_fast.commands.tables import print_table
from lorbms_fast.config import Count, Epochs, Precision, preset_named
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common.dispatch import HAS_TRITON
from lorbms_fast.progress import at_work

if TYPE_CHECKING:
    from lorbms_fast.measurement.gpus import Gpu
    from lorbms_fast.measurement.plan import Range

IMAGES = 338_865
"""Number of images in tr_v5, on which the thesis trained."""


def plan(
    *,
    gpu: str = "",
    preset: str = "thesis",
    batch_size: Count = 12,
    precision: Precision = "bfloat16",
    images: Count = IMAGES,
    epochs: Epochs = 50,
    measured: Path | None = None,
    json: bool = False,
) -> None:
    """Predict time and memory of an iteration, and of a whole run, on a GPU.

    Launches, operations and bytes of one iteration are counted, which takes this machine's CPU half a minute, and set
    against the GPU's data sheet and the chains of steps in our kernels. Only `lorbms-fast bench step` on the GPU itself
    measures; with --measured, what was predicted of each kind of launch is compared with what it took.

    Args:
        gpu: Name of a GPU in the tables, such as H100 or RTX 4090, or its beginning; empty for all, the one that is
            present first.
        preset: Preset whose model runs: thesis or demo.
        batch_size: Reference images an iteration.
        precision: Arithmetic of convolutions and matrix products.
        images: Images in the store.
        epochs: Passes over them.
        measured: Trace that `lorbms-fast profile` wrote on a GPU, or the kit's replay.json.gz; it says what ran.
        json: Print JSON.
    """
    if not HAS_TRITON:
        raise UserError(
            "counting launches needs the package triton, one that kernels know: pip install 'lorbms-fast[triton]'"
        )
    from lorbms_fast.measurement.gpus import GPUS, gpu_called

    present = gpu_called(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    chosen = [one for one in GPUS if one.name.lower().startswith(gpu.lower())]
    if not chosen:
        raise UserError(f"there is no GPU '{gpu}' in the tables: choose one of {', '.join(one.name for one in GPUS)}")
    if measured is not None:
        _compare(measured, chosen[0] if gpu else None, json)
        return
    if images < batch_size:
        raise UserError(f"--images {images} are too few for a batch of {batch_size}: lower --batch-size")
    chosen.sort(key=lambda one: one is not present)
    settings = {"preset": preset, "batch_size": batch_size, "precision": precision}
    _predict(chosen, present, settings, round(epochs * (images // batch_size)), json)


def _predict(chosen: list["Gpu"], present: "Gpu | None", settings: dict[str, Any], iterations: int, json: bool) -> None:
    from lorbms_fast.measurement import host
    from lorbms_fast.measurement.peak import largest_batch
    from lorbms_fast.measurement.plan import OF_PEAK, REPLAYED, count_iteration, predict

    model, batch_size, precision = preset_named(settings["preset"]).model, settings["batch_size"], settings["precision"]
    with at_work("counting what an iteration does: half a minute"):
        iteration = count_iteration(model, batch_size, precision)
        # With few images parameters and their gradients are most of the peak, and what an image adds does not show.
        two = [(n, count_iteration(model, n, precision).peak_bytes) for n in (24, 36)]
    of_host = host.measured()
    counts = {
        "launches_ours": len(iteration.ours),
        "launches_torch": len(iteration.torchs),
        "gflop": sum(operation.work.flops for operation in iteration.operations) / 1e9,
        "gigabytes": sum(operation.work.bytes for operation in iteration.operations) / 1e9,
        "memory_gigabytes": iteration.peak_bytes / 1e9,
    }
    rows: list[dict[str, Any]] = []
    for one in chosen:
        found = predict(iteration, one, of_host)
        rows.append(
            {"gpu": one.name, "here": one is present, "milliseconds_peak": 1e3 * found.peak}
            | {f"milliseconds_{name}": _times(1e3, getattr(found, name)) for name in ("captured", "launched")}
            | {"largest_batch": largest_batch(two, one.memory)}
            | {"hours_captured": _times(iterations / 3600, found.captured)}
        )
    if json:
        of_operators = {f"host_microseconds_{name}": 1e6 * value for name, value in asdict(of_host).items()}
        facts = settings | {"iterations": iterations, "predicted": True} | counts | of_operators
        print(json_format.dumps(facts | {"gpus": rows}, indent=2))
        return
    console = Console(markup=False)
    console.print(
        f"One iteration ({settings['preset']} model, batch {batch_size}, {precision}), counted: "
        f"{counts['launches_ours']:,} launches of our kernels and {counts['launches_torch']:,} of torch's, "
        f"{counts['gflop']:,.0f} GFLOP, {counts['gigabytes']:.1f} GB read and written, "
        f"{counts['memory_gigabytes']:.2f} GB of tensors at most."
    )
    cells = [
        [
            f"{row['gpu']}{' (here)' if row['here'] else ''}",
            f"{row['milliseconds_peak']:.1f}",
            *(_shown(row[f"milliseconds_{name}"]) for name in ("captured", "launched")),
            f"{row['largest_batch']:,}",
            _shown(row["hours_captured"]),
        ]
        for row in rows
    ]
    columns = ["GPU", "at peak, ms", "CUDA graphs, ms", "without, ms", "largest batch", "CUDA graphs, hours"]
    print_table(columns, cells, f"predicted, not measured: an iteration, and {iterations:,} of them", numbers=5)
    console.print(
        f"A launch takes the longest of its arithmetic and its bytes at {OF_PEAK[0]:.0%} to {OF_PEAK[1]:.0%} of the "
        f"data sheet's rates, of its programs' chains of dependent steps, and of {1e6 * REPLAYED[0]:g} to "
        f"{1e6 * REPLAYED[1]:g} us. Without graphs this machine's CPU needs {1e6 * of_host.custom:.0f} us for an "
        f"operator of ours and {1e6 * of_host.plain:.0f} us for one of torch's (measured now). "
        "All else is assumed until measured."
    )


def _compare(file: Path, gpu: "Gpu | None", json: bool) -> None:
    from lorbms_fast.measurement.gpus import GPUS, gpu_called
    from lorbms_fast.measurement.plan import Range, count_iteration
    from lorbms_fast.measurement.traces import Line, compare, read_trace

    trace = read_trace(file)
    gpu = gpu or gpu_called(trace.gpu)
    if gpu is None:
        names = ", ".join(one.name for one in GPUS)
        raise UserError(f"{file} was recorded on '{trace.gpu}', not in the tables: name one with --gpu, of {names}")
    settings = trace.settings
    model = preset_named(settings["preset"]).model
    iteration = count_iteration(model, settings["batch_size"], settings["precision"])
    lines = compare(iteration, trace, gpu)
    whole, took = sum((line.expected for line in lines), Range(0, 0)), sum(line.measured for line in lines)
    if json:
        facts = {"gpu": gpu.name, "recorded_on": trace.gpu, "lines": [asdict(line) for line in lines]}
        print(json_format.dumps(settings | facts, indent=2))
        return
    title = f"{settings['preset']} model, batch {settings['batch_size']}, {settings['precision']}, {trace.gpu}"
    every = Line("all", sum(line.predicted for line in lines), sum(line.seen for line in lines), whole, took)
    rows = [
        [line.name, f"{line.predicted:,}", f"{line.seen:,g}", *_beside(line.expected, line.measured)]
        for line in (*lines, every)
    ]
    columns = ["launch", "predicted launches", "seen", "predicted", "measured", "times the prediction"]
    print_table(columns, rows, f"{title}: an iteration, in us, predicted for {gpu.name} and measured", numbers=5)


def _beside(expected: "Range", seconds: float) -> tuple[str, str, str]:
    of_middle = f"{seconds / expected.middle:.2f}" if expected.middle else ""
    return f"{1e6 * expected.least:,.0f} to {1e6 * expected.most:,.0f}", f"{1e6 * seconds:,.0f}", of_middle


def _times(factor: float, seconds: "Range") -> list[float]:
    return [factor * seconds.least, factor * seconds.most]


def _shown(ends: list[float]) -> str:
    return f"{ends[0]:.1f} to {ends[1]:.1f}"
