"""Making an image store from photographs, shard by shard: an interruption costs one shard at most."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lorbms_fast.atomic_io import check_room, exclusive_lock, full_disk_named
from lorbms_fast.counted import counted
from lorbms_fast.dataloader.decoders import decoder_named
from lorbms_fast.dataloader.image_file import Photograph, shown
from lorbms_fast.dataloader.places import full_name
from lorbms_fast.dataloader.prepare_worker import PreparedPart, Settings, prepare_part
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources.listing import Listing, Skipped, first_of
from lorbms_fast.dataloader.staging import StagingFolder
from lorbms_fast.draws import generator
from lorbms_fast.errors import UserError
from lorbms_fast.parallel import ordered_map

SHARD_BYTES = 64 << 20
TASK = 32
"""Number of photographs that a worker takes at a time."""
OnBad = Literal["skip", "stop"]
Finish = Callable[[StagingFolder, list[list[Photograph]], Settings, OnBad], None]
"""Function that makes those of a store's shards that are not finished yet in a folder."""
CROPS = "by content"
"""The key of random squares, beside the seed; stores made before this was noted drew them by the photographs' ids."""


class Chosen(NamedTuple):
    """Photographs that passed the filters which need no decoding, and the number that passed each."""

    photographs: list[Photograph]
    with_enough_boxes: int
    large_enough: int


@dataclass(frozen=True)
class Counts:
    """Numbers of photographs that passed each filter, and of images they gave."""

    named: int
    unusable: int
    """Entries and files beside these that cannot be used."""
    with_enough_boxes: int
    large_enough: int
    """Large enough by annotated size; without one, not yet excluded."""
    drawn: int
    bad: int
    small: int
    """Found too small when they were decoded."""
    images: int


def prepare_store(
    out: Path, root: Path, listing: Listing, recipe: Recipe, *, image_size: int = 64, seed: int = 0,
    decoder: str = "scaled", on_bad: OnBad = "skip", workers: int = 1, shard_bytes: int = SHARD_BYTES,
    finish: Finish | None = None,
) -> tuple[Counts, list[Skipped]]:  # fmt: skip
    """Write a store. The same arguments give the same bytes, whatever the number of workers.

    Finished shards wait in `OUT.partial` until the store is whole. After an interruption the same call checks and
    keeps them, and makes the others.

    The folder `out` must not exist; the photographs' paths are relative to `root`; the decoder is one of `DECODERS`.
    Bad photographs are left out and named in `skipped.jsonl`, or stop the work. `workers` processes decode, unless
    `finish` makes the shards in their place.

    >>> from tempfile import TemporaryDirectory
    >>> from PIL import Image
    >>> from lorbms_fast.dataloader.sources import of_folder
    >>> with TemporaryDirectory() as name:
    ...     folder = Path(name)
    ...     Image.new("RGB", (90, 80), "teal").save(folder / "a.png")
    ...     counts, skipped = prepare_store(folder / "store", folder, of_folder(folder), Recipe())
    ...     (counts.images, sorted(path.name for path in (folder / "store").iterdir()))
    (1, ['images-00000.npy', 'index.parquet', 'skipped.jsonl', 'store.json'])

    Raises UserError if `out` exists or another process is preparing it, `OUT.partial` is of other settings, the disk is
    too small, nothing is left to store, or a bad photograph is to stop it.
    """
    remove_leftover(out)
    refuse_existing(out)
    work = StagingFolder(_staging_of(out))
    decoder_named(decoder)
    unusable = [entry for entry in listing.unusable if entry.kind == "bad"]
    if unusable and on_bad == "stop":
        raise _stopped(unusable[0])
    if not listing.photographs:
        none = f"names no photographs that can be used{first_of(listing.unusable)}"
        raise UserError(f"{root} {none}: choose another folder")
    settings = Settings(root, recipe, image_size, seed, decoder)
    chosen = choose(listing.photographs, recipe, seed, listing.notes)
    in_a_shard = max(1, shard_bytes // settings.bytes_of_one)
    shards = [chosen.photographs[i : i + in_a_shard] for i in range(0, len(chosen.photographs), in_a_shard)]
    with exclusive_lock(work.folder, f"is preparing {out}"), full_disk_named(out):
        try:
            refuse_existing(out)  # the process that had the lock before may have made it
            work.begin(asdict(settings) | {"root": full_name(root), "crops": CROPS}, len(shards))
            (finish or _processes(out, workers))(work, shards, settings, on_bad)
            return _publish(out, listing, chosen, settings, work, len(shards))
        finally:
            work.remove_if_empty()


def choose(photographs: Sequence[Photograph], recipe: Recipe, seed: int, notes: Sequence[str] = ()) -> Chosen:
    """Apply a recipe's rules, then draw; UserError for two photographs of one id, or none left, with `notes` on why."""
    names = Counter(photograph.id for photograph in photographs)
    if len(names) < len(photographs):
        raise UserError(
            f"several photographs are called '{shown(names.most_common(1)[0][0])}': remove or rename all but one"
        )
    enough = [photograph for photograph in photographs if photograph.boxes >= recipe.min_boxes]
    large = [photograph for photograph in enough if min(photograph.size or (recipe.min_side,)) >= recipe.min_side]
    if not large:
        why = f" ({'; '.join(notes)})" if notes else ""
        raise UserError(
            f"none of the {counted(len(photographs), 'photograph')} has {counted(recipe.min_boxes, 'box', 'boxes')} "
            f"and sides of {recipe.min_side} px{why}: nothing to prepare; choose another recipe or folder"
        )
    return Chosen(_drawn(large, recipe, seed), len(enough), len(large))


def _drawn(photographs: list[Photograph], recipe: Recipe, seed: int) -> list[Photograph]:
    if recipe.draw is None or recipe.draw >= len(photographs):
        return photographs
    order = generator(seed, *recipe.name.encode()).permutation(len(photographs))
    return [photographs[i] for i in np.sort(order[: recipe.draw])]


def _processes(out: Path, workers: int) -> Finish:
    """Make a function that makes shards by processes of this machine."""

    def finish(work: StagingFolder, shards: list[list[Photograph]], settings: Settings, on_bad: OnBad) -> None:
        with_bad = on_bad == "skip"
        missing = [n for n, of in enumerate(shards) if not work.is_finished(n, of, settings.root, with_bad)]
        size = sum(len(shards[number]) for number in missing) * settings.bytes_of_one
        check_room(out, size, "images", "make room")
        tasks = {n: [shards[n][i : i + TASK] for i in range(0, len(shards[n]), TASK)] for n in missing}
        in_one_row = [task for of_shard in tasks.values() for task in of_shard]
        make, begun = partial(prepare_part, settings), work.now()  # workers read ahead of the shard that is written
        # Closed on the way out, so that the progress bar ends before an error is printed.
        with closing(ordered_map(make, in_one_row, workers, "preparing", images=len)) as results:
            for number, of_shard in tasks.items():
                made = islice(results, len(of_shard))
                work.finish(number, shards[number], settings.image_size, as_asked(made, on_bad), begun)

    return finish


def as_asked(made: Iterable[PreparedPart], on_bad: OnBad) -> Iterator[PreparedPart]:
    """Pass parts of a shard on; UserError where a photograph is bad, and is to stop the work."""
    if on_bad == "skip":
        yield from made
        return
    for one in made:
        bad = next((entry for entry in one.skipped if entry.kind == "bad"), None)
        if bad is not None:
            raise _stopped(bad)
        yield one


def _publish(
    out: Path, listing: Listing, chosen: Chosen, settings: Settings, work: StagingFolder, shards: int
) -> tuple[Counts, list[Skipped]]:
    images, left_out = 0, list[Skipped]()
    for number in range(shards):
        record = work.record(number)
        images += len(record["rows"])
        left_out += [Skipped(**entry) for entry in record["skipped"]]
    kinds = Counter(entry.kind for entry in left_out)
    counts = Counts(
        named=len(listing.photographs),
        unusable=len(listing.unusable),
        with_enough_boxes=chosen.with_enough_boxes,
        large_enough=chosen.large_enough,
        drawn=len(chosen.photographs),
        bad=kinds["bad"],
        small=kinds["small"],
        images=images,
    )
    if not counts.images:
        shutil.rmtree(work.folder)  # nothing in it is worth keeping, and the files may be put right
        raise UserError(
            f"none of {counted(counts.drawn, 'photograph')} in {settings.root} can be used ({counts.bad} bad, "
            f"{counts.small} with a side below {settings.recipe.min_side} px)"
            f"{first_of(left_out)}: choose another folder"
        )
    skipped = listing.unusable + left_out
    facts = {"count": counts.images} | asdict(settings) | {"root": full_name(settings.root), "crops": CROPS}
    facts["annotations"] = full_name(listing.annotations) if listing.annotations else None
    facts["photographs"] = asdict(counts)
    work.publish(out, shards, skipped, facts)
    return counts, skipped


def remove_leftover(out: Path) -> None:
    """Remove what a store was made in, where a kill came between its getting its name and the end."""
    if out.exists() and (folder := _staging_of(out)).exists():
        with exclusive_lock(folder, f"is preparing {out}"):
            shutil.rmtree(folder)


def refuse_existing(out: Path) -> None:
    """Raise UserError if there is a store, or something else, of this name already."""
    if out.exists() or out.is_symlink():  # a link to nowhere would be found out at the end
        raise UserError(f"{out} exists already: choose another name or remove it first")


def _staging_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.partial")


def _stopped(bad: Skipped) -> UserError:
    return UserError(f"{shown(bad.source)} {bad.reason}: replace or remove it, or use --on-bad skip")
