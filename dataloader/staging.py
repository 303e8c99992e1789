"""The folder in which a store is made: shards that are finished, and a record of each."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lorbms_fast.atomic_io import atomic_write, sync, write_json, write_text
from lorbms_fast.dataloader.image_file import Photograph
from lorbms_fast.dataloader.prepare_worker import PreparedPart, Row
from lorbms_fast.dataloader.sources.listing import Skipped
from lorbms_fast.dataloader.store import FACTS, FORMAT, INDEX, SCHEMA, SKIPPED, checksum
from lorbms_fast.errors import UserError

SETTINGS = "settings.json"
ROWS = 1 << 20
"""Number of rows of the index that are held at a time; Parquet's usual group of rows."""


@dataclass(frozen=True)
class StagingFolder:
    """`OUT.partial`. A shard is finished when its record is there, which is written after it."""

    folder: Path

    def begin(self, settings: dict[str, Any], shards: int) -> None:
        """Make the folder ready, without what a killed process left; UserError where shards are of other settings."""
        self._store.mkdir(exist_ok=True)
        settings = json.loads(json.dumps(settings))
        try:
            found = json.loads((self.folder / SETTINGS).read_text())
        except (OSError, ValueError):
            found = settings
        if found != settings and self.records():
            changed = ", ".join(name for name in settings if found.get(name) != settings[name])
            raise UserError(
                f"{self.folder} holds finished shards of another {changed}: "
                "remove it, go on with the same options, or choose another --out"
            )
        self.tidy(shards)
        write_json(self.folder / SETTINGS, settings)

    def tidy(self, shards: int) -> None:
        """Remove what is none of so many shards."""
        kept = {shard_name(number) for number in range(shards)}
        for file in self._store.iterdir():
            if file.name not in kept:
                file.unlink()

    def records(self) -> list[Path]:
        """Records of finished shards."""
        return sorted(self.folder.glob("shard-*.json"))

    def is_finished(self, number: int, photographs: Sequence[Photograph], root: Path, with_bad: bool) -> bool:
        """Check that a shard of these photographs is intact.

        `with_bad` accepts one that lacks bad photographs, unless a file below `root` may have been mended since.
        """
        path = self._store / shard_name(number)
        if not path.is_file() or not self._record(number).is_file():
            return False
        try:
            record = self.record(number)
        except ValueError:  # half-written, where a place can hold such files
            return False
        if record.get("made_of") != digest(photographs):
            return False
        if any(entry["kind"] == "bad" for entry in record["skipped"]) and (
            not with_bad or _changed_since(record.get("begun", 0), root, photographs)
        ):
            return False
        return record["sha256"] == checksum(path)

    def now(self) -> int:
        """Tell the time by the clock of the folder's file system, which may be another machine's, in nanoseconds."""
        self._store.touch()
        return self._store.stat().st_mtime_ns

    def finish(
        self, number: int, photographs: Sequence[Photograph], side: int, parts: Iterable[PreparedPart], begun: int
    ) -> None:
        """Write a shard as its parts come, then its record; no photograph was read before `begun`, a time of `now`."""
        path = self._store / shard_name(number)
        rows: list[Row] = []
        skipped: list[Skipped] = []
        with atomic_write(path) as partial, partial.open("wb") as file:
            file.write(_header(0, side))
            for part in parts:
                file.write(part.images.data)  # numpy's own writing does not say that a disk is full
                rows += part.rows
                skipped += part.skipped
            file.seek(0)
            file.write(_header(len(rows), side))
        record = {
            "made_of": digest(photographs),
            "begun": begun,
            "sha256": checksum(path),
            "rows": rows,
            "skipped": [asdict(entry) for entry in skipped],
        }
        write_text(self._record(number), json.dumps(record))

    def record(self, number: int) -> dict[str, Any]:
        """Read the record of a finished shard."""
        return json.loads(self._record(number).read_text())

    def publish(self, out: Path, shards: int, skipped: list[Skipped], facts: dict[str, Any]) -> None:
        """Add index and facts, give the store its name, and remove the rest."""
        counts: dict[str, int] = {}
        sums: dict[str, str] = {}

        def rows() -> Iterator[list[Any]]:
            for number in range(shards):
                record = self.record(number)
                counts[shard_name(number)], sums[shard_name(number)] = len(record["rows"]), record["sha256"]
                yield from record["rows"]

        with (self._store / INDEX).open("wb") as index, pq.ParquetWriter(index, SCHEMA) as writer:
            every = rows()
            while some := list(islice(every, ROWS)):
                columns = zip(zip(*some, strict=True), SCHEMA.types, strict=True)
                arrays = [pa.array(column, kind) for column, kind in columns]
                writer.write_table(pa.Table.from_arrays(arrays, schema=SCHEMA))
        (self._store / SKIPPED).write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in skipped))
        facts = {**FORMAT, **facts, "shards": counts, "sha256": {**sums, INDEX: checksum(self._store / INDEX)}}
        (self._store / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        for file in self._store.iterdir():
            sync(file)
        sync(self._store)
        self._store.rename(out)
        sync(out.parent)
        shutil.rmtree(self.folder)

    def remove_if_empty(self) -> None:
        """Remove the folder unless it holds finished work."""
        if not self.records():
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _store(self) -> Path:
        return self.folder / "store"

    def _record(self, number: int) -> Path:
        return self.folder / record_name(number)


def _changed_since(time: int, root: Path, photographs: Sequence[Photograph]) -> bool:
    """Tell whether a photograph's file was written, or came to its place, after a time: a bad one may be good now."""
    for path in {one.place.path for one in photographs}:
        with suppress(OSError):  # what is gone, or elsewhere, is not newer
            if (root / path).stat().st_ctime_ns > time:
                return True
    return False


def shard_name(number: int) -> str:
    """File of a shard's images."""
    return f"images-{number:05d}.npy"


def record_name(number: int) -> str:
    """File of a finished shard's record."""
    return f"shard-{number:05d}.json"


def _header(count: int, side: int) -> bytes:
    """Header of a .npy file of `count` images; numpy pads it, so its length is the same for any count."""
    header = BytesIO()
    facts = {"descr": "|u1", "fortran_order": False, "shape": (count, side, side, 3)}
    np.lib.format.write_array_header_1_0(header, facts)
    return header.getvalue()


def digest(photographs: Sequence[Photograph]) -> str:
    """SHA-256 of what is known of photographs before they are read."""
    facts = [
        (one.id, one.place.path, one.place.offset, one.place.length, one.boxes, one.size) for one in photographs
    ]  # a dataclass's own text takes ten times as long
    return sha256(repr(facts).encode()).hexdigest()
