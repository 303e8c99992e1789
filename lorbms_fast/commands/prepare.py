"""`lorbms-fast prepare`: turn a folder of photos or COCO into an image store."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

import tyro

from lorbms_fast.dataloader.prepare import SKIPPED, Counts, Skipped, prepare_store
from lorbms_fast.dataloader.recipes import RECIPES, Recipe
from lorbms_fast.dataloader.sources import find_annotations, of_coco, of_folder
from lorbms_fast.errors import UserError

NAMED = 5


def prepare(
    source: tyro.conf.Positional[Path],
    /,
    *,
    out: Path,
    recipe: Literal["folder", "tr_v4", "tr_v5", "tr_v6", "te_v2"] = "folder",
    annotations: Path | None = None,
    image_size: int = 64,
    min_side: int | None = None,
    limit: int | None = None,
    on_bad: Literal["skip", "stop"] = "skip",
    seed: int = 0,
    workers: int = min(8, os.cpu_count() or 1),
) -> None:
    """Decode photographs once into an image store: square uint8 images in one memory-mapped file, and an index.

    `images.npy` and `index.parquet` in the store can be read by numpy and pyarrow.

    Args:
        source: Folder of photographs, or of COCO (with annotations/ and train2017/ or the like).
        out: The store's folder; must not exist.
        recipe: folder takes every photograph below SOURCE once. The others are the thesis's data sets of COCO (Table
            4.1): tr_v4 (at least four boxes; each photo and its mirror image), tr_v5 (five versions of each), tr_v6 and
            te_v2 (random draws without box rule). COCO's keep photos with both sides of 200 px or more.
        annotations: COCO's json; by default the instances_ or image_info_ file in SOURCE/annotations.
        image_size: Side of the images in pixels.
        min_side: Leave out photos with a smaller side; by default the recipe's (200 px for COCO, else the image size).
        limit: Keep that many photos, drawn at random.
        on_bad: Leave bad files out, name and count them; or stop at the first.
        seed: Seed of the random crops and draws.
        workers: Processes that decode; they do not change the result.
    """
    if image_size < 2 or workers < 1 or (limit is not None and limit < 1):
        raise UserError(f"--image-size {image_size} --workers {workers} --limit {limit}: these must be positive")
    if recipe == "folder":
        photographs, chosen = of_folder(source), replace(RECIPES[recipe], min_side=image_size)
    else:
        photographs, chosen = of_coco(source, annotations or _annotations(source)), RECIPES[recipe]
    chosen = _adjusted(chosen, min_side, limit)
    counts, skipped = prepare_store(
        out, source, photographs, chosen, image_size=image_size, seed=seed, on_bad=on_bad, workers=workers
    )
    print(_report(out, chosen, counts, skipped))


def _annotations(source: Path) -> Path:
    if not source.is_dir():
        raise UserError(f"{source} is not a folder: name COCO's folder")
    found = find_annotations(source)
    if found is None:
        raise UserError(f"{source}/annotations has no instances_*.json or image_info_*.json: name one by --annotations")
    return found


def _adjusted(recipe: Recipe, min_side: int | None, limit: int | None) -> Recipe:
    recipe = recipe if min_side is None else replace(recipe, min_side=min_side)
    return recipe if limit is None else replace(recipe, draw=limit)


def _report(out: Path, recipe: Recipe, counts: Counts, skipped: list[Skipped]) -> str:
    lines = [f"{counts.named:,} photographs"]
    if recipe.min_boxes:
        lines.append(f"{counts.with_enough_boxes:,} of them with {recipe.min_boxes} boxes or more")
    if recipe.draw is not None:
        lines.append(f"{counts.drawn:,} of them drawn")
    lines.append(f"left out: {counts.bad} bad, {counts.small} with a side below {recipe.min_side} px")
    bad = [entry for entry in skipped if entry.kind == "bad"]
    lines += [f"  {entry.source} {entry.reason}" for entry in bad[:NAMED]]
    if len(bad) > NAMED:
        lines.append(f"  and {len(bad) - NAMED} more, all named in {out / SKIPPED}")
    lines.append(f"{out}: {counts.images:,} images, {len(recipe.versions)} of each photograph")
    return "\n".join(lines)
