"""`lorbms-fast prepare`: turn photographs into an image store."""

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from lorbms_fast.config import Count, Natural
from lorbms_fast.counted import counted
from lorbms_fast.dataloader.decoders import fastest
from lorbms_fast.dataloader.image_file import shown
from lorbms_fast.dataloader.neighbour_table import NEIGHBOURS
from lorbms_fast.dataloader.places import url_of, without_file_scheme
from lorbms_fast.dataloader.prepare import Counts, prepare_store, refuse_existing, remove_leftover
from lorbms_fast.dataloader.recipes import RECIPES, Recipe
from lorbms_fast.dataloader.sources import Layout, Skipped, layout_of, photographs_in
from lorbms_fast.dataloader.store import SKIPPED
from lorbms_fast.errors import UserError, as_word

WORKERS = min(8, os.cpu_count() or 1)
REASONS = 5
"""Max. number of reasons for leaving photographs out that are printed."""


def prepare(
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")],
    /,
    *,
    out: Path,
    recipe: Literal["folder", "tr_v4", "tr_v5", "tr_v6", "te_v2"] = "folder",
    layout: Layout | Literal["auto"] = "auto",
    annotations: Path | None = None,
    split: str | None = None,
    image_size: Annotated[int, Field(ge=64, le=4096, multiple_of=32)] = 64,
    min_side: Count | None = None,
    limit: Count | None = None,
    decoder: Literal["auto", "scaled", "pillow", "dali"] = "auto",
    on_bad: Literal["skip", "stop"] = "skip",
    seed: Natural = 0,
    workers: Count = WORKERS,
    cluster: str | None = None,
) -> None:
    """Decode photographs once into an image store: square uint8 images in memory-mapped files, and an index.

    The store's .npy and .parquet files can be read by numpy and pyarrow (docs/store.md). An interrupted or killed
    prepare loses nothing that is finished: run the same command again.

    Args:
        source: Folder of photographs; of COCO (with annotations/ and train2017/ or the like); of WebDataset's .tar
            shards; of STL-10's binary files; or of PASCAL VOC (with JPEGImages/). Links to folders are followed; hidden
            files, and stores and runs of this program below it, are left out. What is transparent becomes white; of an
            animation or several pages the first picture is taken.
        out: The store's folder; must not exist. Finished parts wait in OUT.partial until it is whole.
        recipe: folder takes every photograph once. The others are the thesis's data sets of COCO (Table 4.1): tr_v4
            (at least four boxes; each photo and its mirror image), tr_v5 (five versions of each), tr_v6 and te_v2
            (random draws of training and of test images, without box rule). COCO's keep photos with both sides of
            200 px or more.
        layout: Layout of SOURCE; auto looks at what is in it. mixed: pictures as well as shards.
        annotations: COCO's json; by default the instances_ or image_info_ file in SOURCE/annotations: of training
            images first, for te_v2 of test images and never of training images. The file that was read is printed.
        split: Part of STL-10 (train, test, unlabeled) or VOC (train, val, trainval, test); by default everything.
        image_size: Side of the images in pixels, a multiple of 32: the networks halve it five times.
        min_side: Leave out photos with a smaller side; by default the recipe's (200 px for COCO, else the image size).
        limit: Keep that many photos, drawn at random.
        decoder: scaled (fast: decodes JPEGs at a fraction of their size, a mean error below 1.5 of 255 levels), pillow
            (exact, slower), or dali (NVIDIA's, on a GPU where there is one). auto: dali where it is installed and finds
            a GPU, else scaled. What a fast one refuses, pillow decodes.
        on_bad: Leave bad files out, name and count them; or stop at the first.
        seed: Seed of the random crops and draws.
        workers: Processes that decode; they do not change the result.
        cluster: Work on a Ray cluster instead: ray for the one that this machine belongs to, else for this machine
            alone; or its address, as ray://HEAD:10001. SOURCE and OUT may then be s3://BUCKET/NAME, gs://, hdfs:// and
            others that fsspec knows (docs/scale.md); the store is the same, byte for byte.
    """
    if not out.name:
        raise UserError(f"--out '{out}' names no folder that could be made: choose another")
    source, out = without_file_scheme(source), without_file_scheme(out)
    if cluster is None and (url := url_of(source) or url_of(out)):
        raise UserError(f"{url} is not on this machine: say --cluster ray too, which reaches it")
    if url_of(out) is None:
        remove_leftover(out)
        refuse_existing(out)  # before photographs are listed, which may take minutes
    if decoder == "dali" and cluster is None:
        device = import_module("lorbms_fast.devices").device_named("auto")  # by torch, which the others do without
        if obstacle := import_module("lorbms_fast.dataloader.decoders.dali").obstacle(device):
            raise UserError(obstacle)
    chosen = replace(RECIPES[recipe], min_side=image_size) if recipe == "folder" else RECIPES[recipe]
    chosen = replace(chosen, min_side=min_side or chosen.min_side, draw=limit or chosen.draw)
    if layout == "auto" and annotations:
        layout = "coco"
    with nullcontext() if cluster is None else import_module("lorbms_fast.cluster.tasks").connected(cluster):
        if cluster is None:
            found = layout_of(source) if layout == "auto" else layout
            listing = photographs_in(source, found, annotations, split, chosen.part)
            choose, write = fastest, partial(prepare_store, workers=workers)
        else:
            on_ray = import_module("lorbms_fast.cluster.prepare")
            named = None if layout == "auto" else layout
            listing = on_ray.list_photographs(source, named, annotations, split, chosen.part, out)
            choose, write = on_ray.fastest_on_cluster, on_ray.prepare_on_cluster
        for note in listing.notes:
            print(note, flush=True)
        by, said = choose() if decoder == "auto" else (decoder, "")
        if said:
            print(said, flush=True)
        counts, skipped = write(
            out, source, listing, chosen, image_size=image_size, seed=seed, decoder=by, on_bad=on_bad
        )
    print(_report(out, chosen, counts, skipped))
    if counts.images <= NEIGHBOURS:
        need = f"{NEIGHBOURS + 1} or more are needed, for each has {NEIGHBOURS} neighbours"
        print(f"warning: {counted(counts.images, 'image')} will not do to train on: {need}", file=sys.stderr)
    else:
        print(f"next: lorbms-fast neighbours {as_word(url_of(out) or out)}")


def _report(out: Path, recipe: Recipe, counts: Counts, skipped: list[Skipped]) -> str:
    """Say what every filter left, in the order of the filters."""
    lines = [counted(counts.named, "photograph")]
    if counts.unusable:
        lines.append(f"  and {counted(counts.unusable, 'entry or file', 'entries or files')} that cannot be used")
    if recipe.min_boxes:
        lines.append(f"{counts.with_enough_boxes:,} of them with {recipe.min_boxes} boxes or more")
    if counts.large_enough < counts.with_enough_boxes:
        lines.append(f"{counts.large_enough:,} of them annotated with both sides of {recipe.min_side} px or more")
    if recipe.draw is not None:
        lines.append(f"{counts.drawn:,} of them drawn")
    lines.append(f"left out: {counts.bad} bad, {counts.small} with a side below {recipe.min_side} px")
    by_reason: dict[str, list[str]] = {}
    for entry in skipped:
        if entry.kind != "small":
            by_reason.setdefault(entry.reason, []).append(entry.source)
    for reason, sources in list(by_reason.items())[:REASONS]:
        more = f" (and {len(sources) - 1:,} more)" if len(sources) > 1 else ""
        lines.append(f"  {shown(sources[0])} {reason}{more}")
    if sum(map(len, by_reason.values())) > min(len(by_reason), REASONS):
        lines.append(f"  all are named in {url_of(out) or out}/{SKIPPED}")
    lines.append(f"{url_of(out) or out}: {counted(counts.images, 'image')}, {len(recipe.versions)} of each photograph")
    return "\n".join(lines)
