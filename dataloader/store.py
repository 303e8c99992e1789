"""The image store: a folder that anybody can read (docs/store.md).

`images-00000.npy` and so on hold the images in order, uint8 (n, S, S, 3): `numpy.load(path, mmap_mode="r")` reads them.
`index.parquet` has a row for each (id, source, version, crop), `store.json` the format, counts and checksums.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lorbms_fast.atomic_io import read_json
from lorbms_fast.dataloader.decoders import BadImage, Crops, CropsOf, Decoder, decoder_named, read_squares
from lorbms_fast.dataloader.image_file import ByteRange
from lorbms_fast.dataloader.parquet import read_rows
from lorbms_fast.dataloader.places import copied, url_of
from lorbms_fast.dataloader.recipes import VERSIONS, Crop, content_key, square_crop
from lorbms_fast.dataloader.resize import area_resize
from lorbms_fast.dataloader.shards import Rows, Shards, counted_from_0
from lorbms_fast.errors import UserError, as_word

FORMAT = {"format": "lorbms-fast image store", "version": 1}
OTHER = 16.0
"""Mean difference of levels from which on a picture is another one. The same at two sizes differs by 3 (noise by 8); of
272 photographs that played no part in the choice, 99% of the pairs differ by more than 39, the most alike by 14."""
INDEX, FACTS, SKIPPED = "index.parquet", "store.json", "skipped.jsonl"
SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("source", pa.string()), ("offset", pa.int64()), ("length", pa.int64()),
        ("version", pa.int8()), ("flip", pa.bool_()),
        ("crop_x", pa.int32()), ("crop_y", pa.int32()), ("crop_side", pa.int32()),
        ("width", pa.int32()), ("height", pa.int32()),
    ]
)  # fmt: skip


class Entry(NamedTuple):
    """The origin of an image: a square of a photograph of some size."""

    place: ByteRange
    version: int
    crop: Crop
    width: int
    height: int


@dataclass(frozen=True)
class ImageStore:
    """An opened store; its images stay on disk until they are asked for."""

    path: Path
    images: Shards
    """(N, S, S, 3) uint8, memory-mapped; an index, a slice or an array of row numbers gives an array."""
    index: pa.Table
    root: Path
    """Folder that the index's sources are relative to."""
    facts: dict[str, Any]
    """The content of store.json."""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]:
        """Copy images as `images[rows]` does: a store is a data set to PyTorch, of pictures (S, S, 3)."""
        return self.images[rows]

    def __reduce__(self) -> tuple[Any, ...]:
        """Open it there, in another process (a DataLoader's, say), instead of sending all images; a part is sent."""
        if not self.facts:
            return ImageStore, (self.path, self.images, self.index, self.root, self.facts)
        return _opened_again, (self.path.resolve(), self.digest)

    @property
    def ids(self) -> list[str]:
        """Name of every image, in order."""
        return self.index["id"].to_pylist()

    @property
    def side(self) -> int:
        """Side of the images in pixels."""
        return self.images.shape[1]

    @property
    def digest(self) -> str:
        """SHA-256 over the checksums of all images and of the index."""
        return _digest(self.facts["sha256"])

    @property
    def pixels(self) -> str:
        """SHA-256 over the checksums of all images: an index of the same rows has other bytes by another pyarrow."""
        return _digest({name: of for name, of in self.facts["sha256"].items() if name != INDEX})

    @classmethod
    def open(cls, path: Path | str) -> "ImageStore":
        """Open a store; one elsewhere (`s3://bucket/store`) is copied first, once for all processes of a machine.

        Raises UserError if it is none, is of another format, or a file of it is missing or cut short.
        """
        path, named = copied(Path(path)), url_of(path) or path
        if not (path / FACTS).is_file():
            out = "STORE" if path.exists() else named  # what is there, a run say, is not to be lost
            raise UserError(
                f"{named} is not an image store: make one with  lorbms-fast prepare FOLDER --out {as_word(out)}"
            )
        again = "it is damaged: prepare the store again"
        try:
            facts = read_json(path / FACTS)
            found = {name: facts[name] for name in FORMAT}
            side, root = int(facts["image_size"]), Path(facts["root"])
            counts = {str(name): int(count) for name, count in facts["shards"].items()}
            if set(facts["sha256"]) != {*counts, INDEX} or any(Path(name).name != name for name in counts):
                raise ValueError("its files and checksums do not agree")
            if side < 1 or min(counts.values(), default=0) < 0:
                raise ValueError(f"it has images of {side} px, {counts} in its files")
        except PermissionError as error:
            raise UserError(f"{path / FACTS} cannot be read ({error.strerror}): change its permissions") from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{path / FACTS} cannot be read ({reason}): {again}") from error
        if found != FORMAT:
            raise UserError(f"{path / FACTS} is of {found}, this program reads {FORMAT}: prepare the store again")
        images = Shards.open({path / name: (count, side, side, 3) for name, count in counts.items()}, again)
        try:
            index = read_rows(path / INDEX, len(images), ("id", "source")).combine_chunks()
            if not index.schema.equals(SCHEMA):
                raise ValueError(f"it has columns {index.schema.names} of other kinds")
            _check(index)
        except PermissionError:
            raise
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            raise UserError(f"{path / INDEX} cannot be read ({error}): {again}") from error
        return cls(path, images, index, root, facts)

    def gone(self) -> Path | None:
        """Find the first file of images that has been removed or cut short since the store was opened, unread.

        What is mapped stays readable after a removal where the files' system allows it, but reading behind the end of a
        file that was cut short ends the process.
        """
        for name, count in self.facts["shards"].items():
            path = self.path / name
            try:
                if path.stat().st_size < count * self.side**2 * 3:
                    return path
            except OSError:
                return path
        return None

    def entries(self, rows: Sequence[int]) -> list["Entry"]:
        """Read the origins of some images from the index."""
        return [
            Entry(
                ByteRange(row["source"], row["offset"], row["length"]),
                row["version"],
                Crop(row["crop_x"], row["crop_y"], row["crop_side"], row["flip"]),
                row["width"],
                row["height"],
            )
            for row in self.index.take(pa.array(rows, pa.int64())).to_pylist()
        ]

    def rows_beside(self, row: int) -> range:
        """Rows of all images of the same photograph: they stand side by side."""
        after = np.searchsorted(self._first_rows, row, "right")
        return range(*self._first_rows[after - 1 : after + 1].tolist())

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        """Row of each photograph's first image, and the number of all images."""
        source, offset = self.index["source"], self.index["offset"].to_numpy()
        other = pc.not_equal(source[1:], source[:-1]).to_numpy() | (offset[1:] != offset[:-1])
        return np.concatenate([[0], 1 + np.flatnonzero(other), [len(source)]])

    def square(self, i: int, side: int) -> NDArray[np.uint8]:
        """Decode image i of another side, (side, side, 3), by the reference; UserError as of `squares`."""
        return self.squares([i], side, decoder_named("pillow"))[0]

    def squares(self, rows: Sequence[int], side: int, decoder: Decoder) -> NDArray[np.uint8]:
        """Decode images at another resolution, (len(rows), side, side, 3), from their source photographs.

        Neighbouring rows of the same photograph share its decoding, which is that of all its images, as when it was
        prepared: how finely a decoder reads a photograph may depend on its smallest square, and an image is not to
        depend on what is asked for beside it. Rows are what numpy takes for them, else IndexError. Raises UserError if
        a photograph is gone or another one now.
        """
        if url_of(self.root) is None and not self.root.is_dir():
            raise UserError(
                f"{self.root}, of whose photographs {self.path} was made, is missing: put it back, write where it is "
                f'now as "root" into {self.path / FACTS}, or prepare the store again'
            )
        from_0 = counted_from_0(rows, len(self.index)).tolist()  # of a part, there are no images
        shared = [(beside, list(group)) for beside, group in groupby(from_0, self.rows_beside)]
        entries = iter(self.entries([row for beside, _ in shared for row in beside]))
        noted = [list(islice(entries, len(beside))) for beside, _ in shared]
        places = [of_one[0].place for of_one in noted]
        changed: set[int] = set()
        crops = [self._noted(of_one, partial(changed.add, number)) for number, of_one in enumerate(noted)]
        found = read_squares(self.root, places, crops, side, decoder)
        images = [np.empty((0, side, side, 3), np.uint8)]
        for number, (place, (beside, wanted), squares) in enumerate(zip(places, shared, found, strict=True)):
            made = f"of which {self.path} was made"
            if isinstance(squares, BadImage):
                raise UserError(f"{squares.path}, {made}, {squares.reason}: put it back or prepare the store again")
            if len(squares.images) != len(beside) or (number in changed and self._shows_other(beside, squares.images)):
                raise UserError(f"{self.root / str(place)} is another picture than the one {made}: prepare it again")
            images.append(squares.images[[row - beside.start for row in wanted]])
        return np.concatenate(images)

    def _noted(self, entries: list[Entry], note_change: Callable[[], None]) -> CropsOf:
        """Squares noted in the index, for a photograph of the noted size; else none. A changed file is noted."""
        size, crops = (entries[0].width, entries[0].height), tuple(entry.crop for entry in entries)

        def of(photograph: bytes) -> Crops:
            if self.facts.get("crops"):  # drawn by what is in the file, so that other bytes mostly draw others
                content, seed = content_key(photograph), self.facts.get("seed", 0)
                versions = [entry.version for entry in entries if entry.version in VERSIONS]
                if crops != tuple(square_crop(seed, content, version, *size) for version in versions):
                    note_change()
            return lambda width, height: crops if (width, height) == size else ()

        return of

    def _shows_other(self, rows: range, images: NDArray[np.uint8]) -> bool:
        """Tell whether squares of a file that has changed show something else than the store's: a new tag does not."""
        side = min(self.side, images.shape[1])
        pairs = zip(self.images[np.array(rows)], images, strict=True)
        apart = [np.subtract(*(area_resize(one, side) for one in pair), dtype=np.int16) for pair in pairs]
        return bool(np.abs(apart).mean() > OTHER)


def _opened_again(path: Path, digest: str) -> ImageStore:
    store = ImageStore.open(path)
    if store.digest != digest:
        raise UserError(f"{path} is another store than the one that was sent: it was prepared again; open it anew")
    return store


def _digest(checksums: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(store: ImageStore) -> Iterator[tuple[str, bool]]:
    """Read the whole store and yield each file's name and whether its checksum differs from the one written."""
    for name, expected in store.facts["sha256"].items():
        yield name, checksum(store.path / name) != expected


def _check(index: pa.Table) -> None:
    """Raise ValueError unless every image has a unique name and a square inside its photograph."""
    if empty := [name for name in index.column_names if name != "length" and index[name].null_count]:
        raise ValueError(f"cells of {', '.join(empty)} are empty")
    if pc.count_distinct(index["id"]).as_py() < len(index):
        raise ValueError("several images have the same id")
    x, y, side, width, height, offset = (
        index[name].to_numpy().astype(np.int64)
        for name in ("crop_x", "crop_y", "crop_side", "width", "height", "offset")
    )
    sound = (x >= 0) & (y >= 0) & (side >= 1) & (x + side <= width) & (y + side <= height) & (offset >= 0)
    if not sound.all():
        raise ValueError(f"the square of image {int(np.argmin(sound))} does not lie in its photograph")
