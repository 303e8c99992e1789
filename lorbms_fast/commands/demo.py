"""`lorbms-fast demo`: the whole path on shipped photographs."""

import json
from pathlib import Path

from lorbms_fast.commands.compose import compose
from lorbms_fast.commands.neighbours import neighbours
from lorbms_fast.commands.prepare import prepare
from lorbms_fast.commands.render import render
from lorbms_fast.commands.transfer import transfer
from lorbms_fast.config import PRESETS
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine.log import read_lines
from lorbms_fast.photos.coco import IMAGES
from lorbms_fast.photos.composed import COCO
from lorbms_fast.run import Run
from lorbms_fast.training.session import run_training


def demo(*, out: Path = Path("demo"), scenes: int = 300) -> None:
    """Compose scenes, prepare a store, find neighbours, train a small LORBMS, render it and transfer an object.

    Takes about ten minutes on two cores and needs no internet. Run again after an interruption, it goes on where it
    was: what is finished in OUT is not done twice.

    Args:
        out: Folder for everything it makes.
        scenes: Composed scenes, beside the shipped photographs.
    """
    data, store, run = out / "data", out / "store", out / "run"
    images = data / COCO / IMAGES
    if not data.exists():
        _title("1/6 composing scenes from the shipped photographs")
        compose(data, scenes=scenes, stl10_train=0, stl10_test=0)
    if not store.exists():
        _title("2/6 preparing the image store")
        prepare(images, out=store)
    if not (store / "neighbours.parquet").exists():
        _title("3/6 finding visually similar quadrants")
        neighbours(store)
    _title("4/6 training")
    opened = Run.open(run) if (run / "run.json").exists() else Run.create(run, PRESETS["demo"], store)
    run_training(opened, ImageStore.open(store))
    _title("5/6 rendering mixed scenes")
    render(run)
    _title("6/6 moving the bottom left quadrant of one scene into another")
    of_object, into, *_ = sorted(images.iterdir())
    transfer(run, object=of_object, scene=into, mask="0010")
    pictures = [run / name for name in ("mixed_scenes.png", "transfer.png", "curves.png")]
    _title("done: look at  " + "  ".join(map(str, [*pictures, store / "neighbours.png"])))
    print(_moved(run / "metrics.jsonl"))


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _moved(metrics: Path) -> str:
    """Say on one line how the losses moved: means over the first and the last twentieth of the log."""
    entries = [json.loads(line) for line in read_lines(metrics)]
    count = max(1, len(entries) // 20)
    names = {"L_rec_hat": "reconstruction L1", "psnr": "PSNR (dB)", "L_cls": "classifier", "L_D": "discriminator"}

    def mean(name: str, part: list[dict[str, float]]) -> float:
        return sum(entry[name] for entry in part) / len(part)

    moves = [
        f"{title} {mean(name, entries[:count]):.3f} -> {mean(name, entries[-count:]):.3f}"
        for name, title in names.items()
    ]
    return f"losses over {entries[-1]['iteration']:,} iterations: {', '.join(moves)}"
