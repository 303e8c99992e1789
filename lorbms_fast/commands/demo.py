"""`lorbms-fast demo`: the whole path on shipped photographs."""

import math
import shutil
from pathlib import Path

import numpy as np
import torch

from lorbms_fast.atomic_io import atomic_folder
from lorbms_fast.commands.compose import compose
from lorbms_fast.commands.neighbours import neighbours
from lorbms_fast.commands.prepare import prepare
from lorbms_fast.commands.render import render
from lorbms_fast.commands.transfer import transfer
from lorbms_fast.config import PRESETS, Natural
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine.log import read_entries
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.disentangling.retrieval import measure_retrieval
from lorbms_fast.evaluation.results import percentage
from lorbms_fast.mixing import QUADRANTS
from lorbms_fast.photos import shipped
from lorbms_fast.photos.coco import IMAGES
from lorbms_fast.photos.composed import COCO, CREDITS, write_credits
from lorbms_fast.psnr import blur_levels
from lorbms_fast.run import Run, load_networks
from lorbms_fast.similarity.tau import draw, replaced_fraction
from lorbms_fast.training.session import run_training

PHOTOGRAPHS = (
    "bison", "calf", "gosling", "hedgehog", "horse", "kingfisher",
    "kitten", "nubian-ibex", "panda", "penguin", "red-panda", "scarlet-macaw",
)  # fmt: skip
"""Animals, each large in its photograph: few enough to be learned in minutes, the ten neighbours of each are others."""
OBJECT, SCENE, MASK = "scarlet-macaw", "horse", "1010"


def demo(*, out: Path = Path("demo"), scenes: Natural = 0) -> None:
    """Take photographs, prepare a store, find neighbours, train a small LORBMS, render it and transfer an object.

    Takes six to twelve minutes on two cores and needs no internet: twelve photographs of animals, few enough to be
    learned so fast. Run again after an interruption, it goes on where it was: what is finished in OUT is not
    done twice.

    Args:
        out: Folder for everything it makes.
        scenes: Number of composed scenes to learn instead, beside all shipped photographs of scenes: so many take hours
            until one recognizes things.
    """
    data, store, run = out / "data", out / "store", out / "run"
    if not data.exists():
        _title("1/6 taking shipped photographs")
        if scenes:
            compose(data, scenes=scenes, stl10_train=0, stl10_test=0)
        else:
            _copy_photographs(data)
    images = data / COCO / IMAGES if (data / COCO).exists() else data / "photos"
    found, wanted = len(list(images.glob("*.jpg"))), scenes + len(shipped.scenes()) if scenes else len(PHOTOGRAPHS)
    if found != wanted:
        raise UserError(
            f"{images} holds {found} photographs and --scenes {scenes} takes {wanted}: choose another --out"
        )
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
    render(run, film=True)
    named = {path.stem: path for path in sorted(images.iterdir())}
    of_object, into = (named.get(name, list(named.values())[i]) for i, name in enumerate((OBJECT, SCENE)))
    _title(f"6/6 moving quadrants of {of_object.name} into {into.name}: mask {MASK}")
    print(f"digits of a mask: {QUADRANTS}")
    transfer(run, object=of_object, scene=into, mask=MASK)
    print(_learned(run, ImageStore.open(store)))
    pictures = [run / name for name in ("film.png", "mixed_scenes.png", "transfer.png", "curves.png")]
    _title("done: look at  " + "  ".join(map(str, [*pictures, store / "neighbours.png"])))


def _title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _copy_photographs(data: Path) -> None:
    """Copy the photographs, named by what they show, and their credits."""
    with atomic_folder(data) as folder:
        (folder / "photos").mkdir()
        for name in PHOTOGRAPHS:
            shutil.copyfile(shipped.DATA / f"scenes/gcompris_animal_{name}.jpg", folder / "photos" / f"{name}.jpg")
        write_credits(folder / CREDITS)
    print(f"{data}: {len(PHOTOGRAPHS)} photographs; {CREDITS} says who made them: keep it with the pictures")


def _learned(run: Path, store: ImageStore) -> str:
    """Say in numbers what was learned, each beside what it would be without."""
    entries = read_entries(run / "metrics.jsonl")
    iteration, count, cpu = int(entries[-1]["iteration"]), max(1, len(entries) // 20), torch.device("cpu")
    first, last = (
        {name: sum(entry[name] for entry in part) / count for name in part[0]}
        for part in (entries[:count], entries[-count:])
    )
    blurs = blur_levels(to_float_nchw(np.asarray(store.images[:200])))
    found = measure_retrieval(load_networks(run), store, run, iteration, pairs=96, seed=0, device=cpu)
    lines = [
        f"reconstruction after {iteration:,} iterations: PSNR {first['psnr']:.1f} -> "
        f"{last['psnr']:.1f} dB ({', '.join(f'{name} {level:.1f}' for name, level in blurs.items())})",
        f"classifier: L_cls {first['L_cls']:.2f} -> {last['L_cls']:.2f} "
        f"(0.5 of everything: {4 * math.log(2):.2f}, the best constant answer: {_best_constant(store):.2f})",
        f"transfer, {found['pairs']} scenes with a quadrant of another photograph (by chance {found['chance']:.0f} %):",
    ]
    for name, what in (("transferred", "that quadrant"), ("kept", "each other one")):
        lines.append(f"  {what} resembles its own photograph most: {percentage(found['retrieval'][name])}")
    return "\n".join(lines)


def _best_constant(store: ImageStore) -> float:
    """Compute L_cls of a classifier that knows how many quadrants are replaced, and nothing else.

    Of the four answers about a candidate one is ever 1, and that where its quadrant is replaced.
    """
    table = NeighbourTable.load(store)
    replaced = replaced_fraction(draw(table.distances), table.tau)
    return -sum(share * math.log(share) for share in (replaced, 1 - replaced) if share)
