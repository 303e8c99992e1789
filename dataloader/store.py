"""The image store: a folder that anybody can read.

`images.npy` holds all images, uint8 (N, S, S, 3): `numpy.load(path, mmap_mode="r")` reads it. `index.parquet` has a row
for each (id, source file, version, crop), `store.json` the format, counts and checksums.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lorbms_fast.dataloader.decode import read_rgb
from lorbms_fast.dataloader.recipes import Crop
from lorbms_fast.dataloader.resize import area_resize
from lorbms_fast.errors import UserError

FORMAT = {"format": "lorbms-fast image store", "version": 1}
IMAGES, INDEX, FACTS = "images.npy", "index.parquet", "store.json"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("version", pa.int8()),
        ("flip", pa.bool_()),
        ("crop_x", pa.int32()),
        ("crop_y", pa.int32()),
        ("crop_side", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
    ]
)


@dataclass(frozen=True)
class ImageStore:
    """An opened store; its images stay on disk until they are asked for."""

    path: Path
    images: NDArray[np.uint8]
    """(N, S, S, 3), memory-mapped."""
    index: pa.Table
    root: Path
    """Folder that the index's sources are relative to."""
    facts: dict[str, Any]
    """What store.json says."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def ids(self) -> list[str]:
        """Name of every image, in order."""
        names: list[str] = self.index["id"].to_pylist()
        return names

    @classmethod
    def open(cls, path: Path) -> "ImageStore":
        """Open a store.

        Raises:
            UserError: it is none, is of another format, or a file of it is missing or cut short.
        """
        if not (path / FACTS).is_file():
            raise UserError(f"{path} is not an image store: make one with  lorbms-fast prepare FOLDER --out {path}")
        again = "it is damaged: prepare the store again"
        try:
            facts = json.loads((path / FACTS).read_text())
            found = {name: facts[name] for name in FORMAT}
            shape = (int(facts["count"]), int(facts["image_size"]), int(facts["image_size"]), 3)
            root = Path(facts["root"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path / FACTS} cannot be read ({error!r}): {again}") from error
        if found != FORMAT:
            raise UserError(f"{path} has format {found}, this program reads {FORMAT}: prepare the store again")
        images = _map(path / IMAGES, shape, again)
        try:
            index = pq.read_table(path / INDEX)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path / INDEX} cannot be read ({error}): {again}") from error
        if not index.schema.equals(SCHEMA) or len(index) != len(images):
            raise UserError(f"{path / INDEX} has {len(index)} rows for {len(images)} images, or other columns: {again}")
        return cls(path, images, index, root, facts)

    def square(self, i: int, side: int) -> NDArray[np.uint8]:
        """Image i at another resolution, (side, side, 3), from its source photograph.

        Raises:
            UserError: the photograph is gone or is another one now.
        """
        row = {name: self.index[name][i].as_py() for name in self.index.column_names}
        source = self.root / row["source"]
        if not source.is_file():
            raise UserError(f"{source} is gone, of which {self.path} was made: put it back or prepare the store again")
        photograph = read_rgb(source)
        if photograph.shape[:2] != (row["height"], row["width"]):
            raise UserError(f"{source} is another picture than when {self.path} was made: prepare the store again")
        return cut(photograph, Crop(row["crop_x"], row["crop_y"], row["crop_side"], row["flip"]), side)


def cut(photograph: NDArray[np.uint8], crop: Crop, side: int) -> NDArray[np.uint8]:
    """The square of a photograph (H, W, 3), area-resampled to (side, side, 3)."""
    square = photograph[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side]
    return area_resize(square[:, ::-1] if crop.flip else square, side)


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_checksums(store: ImageStore) -> None:
    """Read the whole store once and compare it with the sums noted when it was made.

    Raises:
        UserError: names the first file whose content has changed.
    """
    for name in (IMAGES, INDEX):
        if checksum(store.path / name) != store.facts["sha256"][name]:
            raise UserError(f"{store.path / name} is not what was written: prepare the store again")


def _map(path: Path, shape: tuple[int, int, int, int], again: str) -> NDArray[np.uint8]:
    """Map the images, after a look at the header: its word is not taken for how much there is to read."""
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("not version 1.0 of the npy format")
            found, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            expected = file.tell() + int(np.prod(shape, dtype=object))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {again}") from error
    if found != shape or fortran_order or dtype != np.uint8:
        raise UserError(f"{path} holds {dtype} {found} where {FACTS} says uint8 {shape}: {again}")
    if path.stat().st_size != expected:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes instead of {expected:,}: {again}")
    if shape[0] == 0:
        raise UserError(f"{path} holds no images: {again}")
    images: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    return images
