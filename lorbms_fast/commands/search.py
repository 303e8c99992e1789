"""`lorbms-fast search`: find good hyperparameters."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from lorbms_fast.atomic_io import write_json
from lorbms_fast.commands.options import StoreFolder
from lorbms_fast.commands.tables import print_table
from lorbms_fast.config import Count, preset_named
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.models.variants import with_variant
from lorbms_fast.search.space import Space


def search(
    store: StoreFolder,
    /,
    *,
    out: Path,
    method: Literal["random", "pbt"] = "random",
    trials: Count = 8,
    slices: Count = 10,
    every: Count = 1000,
    metric: str = "L_rec_prime",
    preset: str = "thesis",
    variant: str = "thesis",
    config: Path | None = None,
    device: str = "auto",
    space: Annotated[Space, tyro.conf.arg(name="")] = Space(),  # noqa: B008  # frozen
) -> None:
    """Train many runs with learning rates and weights of the losses drawn from ranges; one at a time on each device.

    random draws once for each run. pbt, population based training, lets the worst runs go on from the best ones'
    parameters after every slice, with settings changed a bit. The same command goes on after an interruption; on a
    Ray cluster the trials spread over its machines. OUT/search.json lists the runs, best first.

    Args:
        store: Image store with neighbours.
        out: Folder of the search.
        method: random or pbt.
        trials: Number of runs.
        slices: Number of times that each run reports.
        every: Iterations of a slice.
        metric: Number of metrics.jsonl whose mean over a slice should become small.
        preset: Settings to start from: thesis or demo.
        variant: System of Appendix D.
        config: TOML or JSON file with settings that replace the preset's.
        device: `cpu`, `cuda`; auto takes a GPU when there is one.
        space: Lowest and highest value of each setting.
    """
    base = preset_named(preset, config)
    from lorbms_fast.search.tuner import search as run_search

    ImageStore.open(store)
    base = replace(with_variant(base, variant), device=device)
    rows = run_search(base, space, store, out, method=method, trials=trials, slices=slices, every=every, metric=metric)
    write_json(out / "search.json", rows)
    columns = [name for name in rows[0] if name != "folder"]
    print_table(columns, [[f"{row[name]:.3g}" for name in columns] for row in rows])
    print(f"{out / 'search.json'}; best run: {rows[0]['folder']}")
