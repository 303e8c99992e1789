"""`prepare` on a cluster: archives are listed and shards made as tasks; the store is that of a single machine."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lorbms_fast.cluster.claims import check_claim, claim
from lorbms_fast.cluster.tasks import Task, has_gpus, result, results
from lorbms_fast.dataloader.decoders import fastest
from lorbms_fast.dataloader.image_file import ByteRange, Photograph, is_inside
from lorbms_fast.dataloader.places import Place, full_name, nearby, scratch, url_of
from lorbms_fast.dataloader.prefetch import Prefetcher
from lorbms_fast.dataloader.prepare import Counts, Finish, OnBad, as_asked, prepare_store
from lorbms_fast.dataloader.prepare_worker import PreparedPart, Settings, prepare_part
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import Layout, Listing, Part, Skipped, layout_of, photographs_in
from lorbms_fast.dataloader.sources.coco import annotation_files
from lorbms_fast.dataloader.sources.listing import Named
from lorbms_fast.dataloader.sources.tar import named_members
from lorbms_fast.dataloader.staging import SETTINGS, StagingFolder, digest, record_name, shard_name
from lorbms_fast.dataloader.store import FACTS
from lorbms_fast.errors import UserError
from lorbms_fast.parallel import decode_alone

IN_A_PART = 256
"""Number of photographs that a task has on its disk at a time, where they come from elsewhere."""
AHEAD = 2
"""Number of next parts that are fetched meanwhile."""
LISTED = "listed"
"""Folder of the archives' lists in `OUT.partial`."""
OTHERS = "photographs or options"
"""The work that `OUT.partial` elsewhere may be claimed for."""


def list_photographs(
    source: Path, layout: Layout | None, annotations: Path | None, split: str | None, part: Part | None, out: Path
) -> Listing:
    """List a source's photographs as one machine does, its archives as tasks; None is the layout that is found.

    A source elsewhere is listed in a local folder of empty files with its names. What was read of archives waits in
    `OUT.partial` for another try. Raises UserError as `photographs_in` does, and for a layout that is read only in a
    machine's own folder.
    """
    if url := url_of(out):
        if url.count("/") == 2:
            raise UserError(f"--out {url} is a whole bucket: name a folder in it, as {url}/store")
        _refuse_existing(Place(url), _partial(out))
    with _names_of(source) as folder:
        layout = layout or layout_of(folder)
        if layout in ("stl10", "voc") and folder != source:
            raise UserError(f"{url_of(source)} is {layout}, which is small: copy it to a folder of this machine first")
        members = partial(_members_on_cluster, Place.of(source), _partial(out))
        try:
            listing = photographs_in(folder, layout, annotations, split, part, members)
        except UserError as error:
            raise UserError(_of(source, folder, str(error))) from error
        found = listing.annotations
        return replace(
            listing,
            notes=[_of(source, folder, note) for note in listing.notes],
            annotations=found and Path(_of(source, folder, str(found))),
        )


@contextmanager
def _names_of(source: Path) -> Iterator[Path]:
    """Yield a local folder with the names of the source's files, and with the content of COCO's annotations."""
    url = url_of(source)
    if url is None:
        yield source
        return
    place = Place(url)
    with scratch() as folder:
        root = folder / url.rpartition("/")[2]
        names = place.names()
        if not names:
            raise UserError(f"{url} is missing or empty: name a folder of photographs")
        for name in filter(is_inside, names):  # a bucket's names may lead anywhere
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        for path in annotation_files(root):
            path.unlink()
            place.fetch(path.relative_to(root).as_posix(), path)
        yield root


def _of(source: Path, folder: Path, text: str) -> str:
    return text.replace(str(folder), full_name(source)) if url_of(source) else text


def _members_on_cluster(
    source: Place, work: Place, root: Path, archives: list[Path]
) -> tuple[list[Named], list[Skipped]]:
    """Name the photographs in archives as `named_members` does, each archive a task."""
    versions = source.versions() if source.folder is None else {}
    tasks = [
        Task(f"{source.name}/{path}", 1, (number, str(path), versions.get(str(path), "")))
        for number, path in enumerate(archives)
    ]
    lists: list[tuple[list[Named], list[Skipped]]] = [([], [])] * len(tasks)
    for task, found in results(_list_archive, (source, work), tasks, "listing", len(tasks), unit=" archives"):
        lists[task.item[0]] = found
    return [one for found, _ in lists for one in found], [one for _, left_out in lists for one in left_out]


def _list_archive(shared: tuple[Place, Place], item: tuple[int, str, str]) -> tuple[list[Named], list[Skipped]]:
    (source, work), (number, archive, version) = shared, item
    if source.folder is not None:
        _check_seen(source.folder)
        return named_members(source.folder, [Path(archive)])
    name = f"{LISTED}/{number:06d}.json"
    if work.exists(name):
        try:
            kept = json.loads(work.read(name))
            if kept["of"] == [archive, version]:
                named = [Named(short, full, ByteRange(*place)) for short, full, place in kept["named"]]
                return named, [Skipped(*entry) for entry in kept["skipped"]]
        except (ValueError, KeyError, TypeError):  # half-written, where a place can hold such files
            pass
    with scratch() as folder:
        source.fetch(archive, folder / archive)
        named, skipped = named_members(folder, [Path(archive)])
    kept = {
        "of": [archive, version],
        "named": [(one.short, one.full, (one.place.path, one.place.offset, one.place.length)) for one in named],
        "skipped": [(one.source, one.kind, one.reason) for one in skipped],
    }
    with work.write(name) as path:
        path.write_text(json.dumps(kept))
    return named, skipped


def fastest_on_cluster() -> tuple[str, str]:
    """Choose a decoder as one machine does: one with a GPU, where the cluster has some."""
    return result(_fastest, None, "decoder", 1, gpu=True, unit=" machine") if has_gpus() else fastest()


def _fastest(shared: None, item: None) -> tuple[str, str]:
    return fastest()


def prepare_on_cluster(
    out: Path, source: Path, listing: Listing, recipe: Recipe, **options: object
) -> tuple[Counts, list[Skipped]]:
    """Write a store as `prepare_store` does, whose arguments these are, on the cluster; `out` may be elsewhere.

    Elsewhere, where folders get no new names, shards lie in OUT from the beginning, and OUT is a store from the moment
    that `store.json` is in it, which comes last. Nor are there locks: several processes may work on one OUT if they
    write the same, and the last are told that another has finished; one that would write something else is refused.
    """
    url = url_of(out)
    if url is None:
        return prepare_store(out, source, listing, recipe, finish=_on_cluster(None), **options)  # type: ignore[arg-type]
    store, work = Place(url), _partial(out)
    with scratch() as folder:
        near = folder / "store"
        staging = near.with_name(f"{near.name}.partial")
        staging.mkdir()
        for name in work.names():
            if name == SETTINGS:
                work.fetch(name, staging / name)
            elif "/" not in name:
                (staging / name).touch()  # the record itself comes with its shard's task
        try:
            made = prepare_store(near, source, listing, recipe, finish=_on_cluster(store), **options)  # type: ignore[arg-type]
        except UserError as error:
            raise UserError(str(error).replace(str(near), url)) from error
        for path in sorted(near.iterdir(), key=lambda path: path.name == FACTS):
            store.put(path, path.name)
    work.remove()
    return made


def _partial(out: Path) -> Place:
    return Place(f"{full_name(out)}.partial")


def _refuse_existing(store: Place, work: Place) -> None:
    if store.exists(FACTS):
        if not work.names():
            raise UserError(f"{store.name} exists already: choose another name or remove it first")
        work.remove()  # a kill came between the store's getting whole and the end
        raise UserError(f"{store.name} exists already, and is whole: choose another name or remove it first")
    if store.names() and not work.names():
        raise UserError(f"{store.name} exists already, and is no store: choose another name or remove it first")


@dataclass(frozen=True)
class _Job:
    """The facts that the tasks which make a store's shards share."""

    store: Place | None
    """The store's place, if it is elsewhere."""
    staging: str
    """The local staging folder, if it is not."""
    settings: Settings
    on_bad: OnBad
    claim: str = ""


def _on_cluster(store: Place | None) -> Finish:
    """Make a function that makes shards as tasks of the cluster, for a store that is elsewhere or (None) is not."""

    def finish(work: StagingFolder, shards: list[list[Photograph]], settings: Settings, on_bad: OnBad) -> None:
        everywhere = replace(settings, root=Path(full_name(settings.root)))  # machines may work in other folders
        job = _Job(store, str(work.folder.resolve()), everywhere, on_bad)
        if store is not None:
            place = _partial(Path(store.name))
            facts = [(work.folder / SETTINGS).read_text(), *map(digest, shards)]
            job = replace(job, claim=claim(place, facts, OTHERS))
            _refuse_existing(store, place)  # the process whose claim was there before may have made it
            place.put(work.folder / SETTINGS, SETTINGS)
        tasks = (
            Task(f"shard {number} of {len(shards)} ({_span(photographs)})", len(photographs), (number, photographs))
            for number, photographs in enumerate(shards)
        )
        count = sum(map(len, shards))
        gpu = settings.decoder == "dali" and has_gpus()
        for task, record in results(_make_shard, job, tasks, "preparing", count, gpu=gpu):
            if store is not None:
                (work.folder / record_name(task.item[0])).write_bytes(record)
        work.tidy(len(shards))  # of what killed workers left half-written

    return finish


def _span(photographs: list[Photograph]) -> str:
    first, last = photographs[0].place.path, photographs[-1].place.path
    return first if first == last else f"{first} to {last}"


def _make_shard(job: _Job, item: tuple[int, list[Photograph]]) -> bytes:
    """Make a shard unless it is there, whole, and return its record where the store is elsewhere."""
    decode_alone()
    number, photographs = item
    if job.store is None:
        _check_seen(Path(job.staging))
        _finish(StagingFolder(Path(job.staging)), number, photographs, job)
        return b""
    work, shard, record = _partial(Path(job.store.name)), shard_name(number), record_name(number)
    with scratch() as folder:
        images = folder / "store" / shard
        images.parent.mkdir()
        if work.exists(record) and job.store.exists(shard):
            job.store.fetch(shard, images)
            work.fetch(record, folder / record)
        if _finish(StagingFolder(folder), number, photographs, job):
            check_claim(work, job.claim, OTHERS)
            job.store.put(images, shard)
            work.put(folder / record, record)
        return (folder / record).read_bytes()


def _finish(staging: StagingFolder, number: int, photographs: list[Photograph], job: _Job) -> bool:
    """Make a shard in a staging folder, if it is not there; tells whether it was not."""
    if staging.is_finished(number, photographs, job.settings.root, with_bad=job.on_bad == "skip"):
        return False
    parts = as_asked(_parts(job.settings, photographs), job.on_bad)
    staging.finish(number, photographs, job.settings.image_size, parts, staging.now())
    return True


def _parts(settings: Settings, photographs: list[Photograph]) -> Iterator[PreparedPart]:
    """Make the parts of a shard; photographs elsewhere are fetched while those before are decoded."""
    if url_of(settings.root) is None:
        _check_seen(settings.root)
    some = [photographs[i : i + IN_A_PART] for i in range(0, len(photographs), IN_A_PART)]

    def fetched(part: int) -> tuple[Path, ExitStack]:
        stack = ExitStack()
        if part >= len(some):
            return settings.root, stack
        return stack.enter_context(nearby(settings.root, [one.place for one in some[part]])), stack

    ahead = Prefetcher(fetched, AHEAD)
    for part, of_part in enumerate(some):
        root, stack = ahead(part)
        with stack:
            yield prepare_part(replace(settings, root=root), of_part)


def _check_seen(folder: Path) -> None:
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not there: a cluster's machines need a common file system for it, or a place that all reach, "
            "such as s3://BUCKET/NAME"
        )
