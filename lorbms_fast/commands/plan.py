"""`lorbms-fast plan`: how long training will take on a GPU, before there is one."""

import json as json_format
from dataclasses import asdict

import torch
from rich.console import Console
from rich.table import Table

from lorbms_fast.config import Precision, preset_named
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common.dispatch import TRITON

IMAGES = 338_865
"""Number of images in tr_v5, on which the thesis trained."""


def plan(
    *,
    gpu: str = "",
    preset: str = "thesis",
    batch_size: int = 12,
    precision: Precision = "bfloat16",
    images: int = IMAGES,
    epochs: float = 50,
    json: bool = False,
) -> None:
    """Predict time and memory of an iteration, and of a whole run, on a GPU.

    Launches, operations and bytes of one iteration are counted, which takes this machine's CPU half a minute, and set
    against the GPU's data sheet. Only `lorbms-fast bench step` on the GPU itself measures.

    Args:
        gpu: A100, RTX 4090, H100 or B200, or the beginning of a name; empty for all, the one that is present first.
        preset: Preset whose model runs: thesis or demo.
        batch_size: Reference images an iteration.
        precision: Arithmetic of convolutions and matrix products.
        images: Images in the store.
        epochs: Passes over them.
        json: Print JSON.
    """
    if not TRITON:
        raise UserError(
            "counting launches needs the package triton, which is missing: pip install 'lorbms-fast[triton]'"
        )
    from lorbms_fast.measurement.gpus import GPUS
    from lorbms_fast.measurement.peak import largest_batch
    from lorbms_fast.measurement.plan import LAUNCHED, OF_PEAK, REPLAYED, count_iteration, predict

    present = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    chosen = [one for one in GPUS if one.name.lower().startswith(gpu.lower())]
    if not chosen:
        raise UserError(f"there is no GPU '{gpu}' in the tables: choose one of {', '.join(one.name for one in GPUS)}")
    model = preset_named(preset).model
    if min(batch_size, images // max(batch_size, 1), epochs) <= 0:
        raise UserError(
            f"--batch-size {batch_size} --images {images} --epochs {epochs}: give more than nothing of each"
        )
    chosen.sort(key=lambda one: one.name not in present)
    iteration = count_iteration(model, batch_size, precision)
    other = max(1, batch_size // 2) if batch_size > 1 else 2
    two = [(batch_size, iteration.peak_bytes), (other, count_iteration(model, other, precision).peak_bytes)]
    iterations = round(epochs * (images // batch_size))
    counts = {
        "launches_ours": len(iteration.ours),
        "launches_torch": len(iteration.torchs),
        "gflop": sum(operation.work.flops for operation in iteration.operations) / 1e9,
        "gigabytes": sum(operation.work.bytes for operation in iteration.operations) / 1e9,
        "memory_gigabytes": iteration.peak_bytes / 1e9,
    }
    rows = []
    for one in chosen:
        predicted = predict(iteration, one)
        rows.append(
            {"gpu": one.name, "here": bool(present) and one.name in present}
            | {f"milliseconds_{name}": 1e3 * seconds for name, seconds in asdict(predicted).items()}
            | {"largest_batch": largest_batch(two, one.memory)}
            | {f"hours_{name}": seconds * iterations / 3600 for name, seconds in asdict(predicted).items()}
        )
    if json:
        settings = {"preset": preset, "batch_size": batch_size, "precision": precision, "iterations": iterations}
        print(json_format.dumps(settings | {"predicted": True} | counts | {"gpus": rows}, indent=2))
        return
    console = Console()
    console.print(
        f"One iteration ({preset} model, batch {batch_size}, {precision}), counted: {counts['launches_ours']:,} "
        f"launches of our kernels and {counts['launches_torch']:,} of torch's, {counts['gflop']:,.0f} GFLOP, "
        f"{counts['gigabytes']:.1f} GB read and written, {counts['memory_gigabytes']:.2f} GB of tensors at most."
    )
    table = Table("GPU", title=f"predicted, not measured: an iteration, and all {iterations:,} of {epochs:g} epochs")
    for column in (
        "at peak rates",
        "expected, CUDA graphs",
        "without graphs",
        "largest batch",
        "hours, at peak",
        "expected",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['gpu']}{' (here)' if row['here'] else ''}",
            *(f"{row[f'milliseconds_{name}']:.2f} ms" for name in ("peak", "expected", "launched")),
            f"{row['largest_batch']:,}",
            *(f"{row[f'hours_{name}']:.1f} h" for name in ("peak", "expected")),
        )
    console.print(table)
    console.print(
        f"Expected means {OF_PEAK:.0%} of the data sheet's rates and at least {1e6 * REPLAYED:g} us a launch; without "
        f"graphs the host needs {1e6 * LAUNCHED:g} us a launch. Both are assumptions until measured."
    )
