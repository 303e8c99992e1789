"""From photographs to an image store."""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lorbms_fast.dataloader.decode import BadImage, read_rgb
from lorbms_fast.dataloader.recipes import Crop, Recipe, square_crop
from lorbms_fast.dataloader.sources import Photograph
from lorbms_fast.dataloader.store import FACTS, FORMAT, IMAGES, INDEX, SCHEMA, checksum, cut
from lorbms_fast.errors import UserError
from lorbms_fast.files import whole_folder
from lorbms_fast.parallel import in_order

SKIPPED = "skipped.jsonl"


@dataclass(frozen=True)
class Skipped:
    """A photograph that is not in the store."""

    source: str
    kind: Literal["bad", "small"]
    reason: str


@dataclass(frozen=True)
class Prepared:
    """What one photograph gave: its size, and a square image for each version."""

    photograph: Photograph
    width: int
    height: int
    crops: tuple[Crop, ...]
    images: NDArray[np.uint8]


@dataclass(frozen=True)
class Counts:
    """How many photographs passed each filter, and how many images they gave."""

    named: int
    with_enough_boxes: int
    drawn: int
    bad: int
    small: int
    images: int


def prepare_store(
    out: Path,
    root: Path,
    photographs: Sequence[Photograph],
    recipe: Recipe,
    *,
    image_size: int = 64,
    seed: int = 0,
    on_bad: Literal["skip", "stop"] = "skip",
    workers: int = 1,
) -> tuple[Counts, list[Skipped]]:
    """Write a store: all of it, or nothing. The same arguments give the same bytes, whatever the workers.

    Args:
        out: the store's folder; must not exist.
        root: folder that the photographs' paths are relative to.
        photographs: what to prepare.
        recipe: which are kept and what is made of each.
        image_size: side of the images in pixels.
        seed: of crops and draws.
        on_bad: leave bad photographs out and name them in `skipped.jsonl`, or stop at the first.
        workers: processes that decode.

    Raises:
        UserError: `out` exists, the disk is too small, nothing is left to store, or a bad photograph is to stop it.
    """
    enough = [photograph for photograph in photographs if photograph.boxes >= recipe.min_boxes]
    chosen = _drawn(enough, recipe.draw, seed)
    if not chosen:
        raise UserError(f"none of the {len(photographs)} photographs has {recipe.min_boxes} boxes: nothing to prepare")
    _check_space(out, len(chosen) * len(recipe.versions) * image_size**2 * 3)
    work = partial(_prepare, root, recipe, image_size, seed)
    # Closed on the way out, so that the progress bar ends before an error is told.
    with whole_folder(out) as folder, closing(in_order(work, chosen, workers, "preparing")) as results:
        rows, skipped = _write(folder, results, recipe, image_size, on_bad)
        kinds = Counter(entry.kind for entry in skipped)
        if not rows:
            raise UserError(
                f"none of {len(chosen)} photographs in {root} can be used ({kinds['bad']} bad, {kinds['small']} with a "
                f"side below {recipe.min_side} px), e.g. {skipped[0].source} {skipped[0].reason}: choose another folder"
            )
        counts = Counts(len(photographs), len(enough), len(chosen), kinds["bad"], kinds["small"], len(rows))
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / INDEX)
        (folder / SKIPPED).write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in skipped))
        facts = FORMAT | {
            "count": len(rows),
            "image_size": image_size,
            "root": str(root.resolve()),
            "recipe": asdict(recipe),
            "seed": seed,
            "photographs": asdict(counts),
            "sha256": {name: checksum(folder / name) for name in (IMAGES, INDEX)},
        }
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    return counts, skipped


def _drawn(photographs: list[Photograph], count: int | None, seed: int) -> list[Photograph]:
    if count is None or count >= len(photographs):
        return photographs
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    return [photographs[i] for i in np.sort(generator.permutation(len(photographs))[:count])]


def _check_space(out: Path, size: int) -> None:
    place = next(parent for parent in out.resolve().parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if size > free:
        raise UserError(f"{out} would need {size / 1e9:.2f} GB and {free / 1e9:.2f} GB are free on its disk: make room")


def _prepare(root: Path, recipe: Recipe, image_size: int, seed: int, photograph: Photograph) -> Prepared | Skipped:
    try:
        pixels = read_rgb(root / photograph.path)
    except BadImage as bad:
        return Skipped(photograph.path, "bad", bad.reason)
    height, width, _ = pixels.shape
    if min(height, width) < recipe.min_side:
        return Skipped(photograph.path, "small", f"has {width} x {height} pixels, below {recipe.min_side}")
    crops = tuple(square_crop(seed, photograph.id, version, width, height) for version in recipe.versions)
    return Prepared(photograph, width, height, crops, np.stack([cut(pixels, crop, image_size) for crop in crops]))


def _write(
    folder: Path,
    results: Iterator[Prepared | Skipped],
    recipe: Recipe,
    image_size: int,
    on_bad: Literal["skip", "stop"],
) -> tuple[list[dict[str, object]], list[Skipped]]:
    """Write `images.npy` as results come, its header again at the end, when the count is known."""
    rows: list[dict[str, object]] = []
    skipped: list[Skipped] = []
    with (folder / IMAGES).open("wb") as file:
        _write_header(file, 0, image_size)
        for result in results:
            if isinstance(result, Prepared):
                file.write(result.images.tobytes())
                rows += _rows(result, recipe)
            elif result.kind == "bad" and on_bad == "stop":
                raise UserError(f"{result.source} {result.reason}: replace or remove it, or use --on-bad skip")
            else:
                skipped.append(result)
        file.seek(0)
        _write_header(file, len(rows), image_size)
    return rows, skipped


def _write_header(file: IO[bytes], count: int, image_size: int) -> None:
    """numpy leaves room in a header for the first axis to grow, so the second one fits in the first one's place."""
    shape = (count, image_size, image_size, 3)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _rows(result: Prepared, recipe: Recipe) -> list[dict[str, object]]:
    name = result.photograph.id
    return [
        {
            "id": name if recipe.versions == (1,) else f"{name}_{version}",
            "source": result.photograph.path,
            "version": version,
            "flip": crop.flip,
            "crop_x": crop.x,
            "crop_y": crop.y,
            "crop_side": crop.side,
            "width": result.width,
            "height": result.height,
        }
        for version, crop in zip(recipe.versions, result.crops, strict=True)
    ]
