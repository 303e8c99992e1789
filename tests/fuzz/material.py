"""Small valid files to begin with."""

import io
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import Listing, of_folder
from lorbms_fast.dataloader.store import FACTS, ImageStore

SIDE = 32
IMAGES = 12
"""Of the store: ten neighbours, the image itself and one to spare."""


def colours(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random colours, (height, width, 3)."""
    return np.random.Generator(np.random.Philox(seed)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def picture(format: str, height: int = 6, width: int = 7, mode: str = "RGB", **options: Any) -> bytes:
    """A small picture file."""
    file = io.BytesIO()
    Image.fromarray(colours(height, width)).convert(mode).save(file, format, **options)
    return file.getvalue()


@cache
def store_files() -> dict[str, bytes]:
    """Every file of a store of twelve images with neighbours."""
    with TemporaryDirectory() as temporary:
        root, out = Path(temporary, "photographs"), Path(temporary, "store")
        root.mkdir()
        lay_photographs(root)
        prepare_store(out, root, of_folder(root), Recipe(), image_size=SIDE)
        store = ImageStore.open(out)
        rows = np.stack([[np.roll(np.arange(IMAGES), -1 - i)[:10] for _ in range(4)] for i in range(IMAGES)])
        distances = np.sort(np.random.Generator(np.random.Philox(1)).random((IMAGES, 4, 10), np.float32))
        NeighbourTable(rows, distances, 0.5, "random").save(store)
        return {path.name: path.read_bytes() for path in out.iterdir()}


def lay_photographs(folder: Path) -> None:
    """Write the photographs of which the store is made."""
    for i in range(IMAGES):
        Image.fromarray(colours(40, 40 + i, i)).save(folder / f"{i:02d}.png")


def lay_store(folder: Path, changed: dict[str, bytes]) -> Path:
    """Write the store into a folder, some of its files with other content; photographs are looked for there too."""
    facts = json.loads(store_files()[FACTS]) | {"root": str(folder)}
    for name, content in (store_files() | {FACTS: as_json(facts)} | changed).items():
        (folder / name).write_bytes(content)
    return folder


def as_json(document: object) -> bytes:
    """A document as JSON; lone surrogates and numbers of any size stay."""
    return json.dumps(document).encode()


def prepared(listing: Listing, root: Path) -> ImageStore:
    """What becomes of a listing."""
    out = root / "out"
    prepare_store(out, root, listing, Recipe(), image_size=SIDE)
    return ImageStore.open(out)
