"""Worker side of `prepare`: decode, crop and resize some photographs. Imports stay few: each worker pays for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.decoders import BadImage, Crops, Squares, decoder_named, read_squares
from lorbms_fast.dataloader.image_file import Photograph
from lorbms_fast.dataloader.recipes import Crop, Recipe, content_key, square_crop
from lorbms_fast.dataloader.sources.listing import Skipped


@dataclass(frozen=True)
class Settings:
    """Settings that decide the content of a store, beside the photographs."""

    root: Path
    recipe: Recipe
    image_size: int
    seed: int
    decoder: str

    @property
    def bytes_of_one(self) -> int:
        """Number of bytes that a photograph becomes."""
        return len(self.recipe.versions) * self.image_size**2 * 3


Row = tuple[str, str, int, int | None, int, bool, int, int, int, int, int]
"""An image's row of the index, as the store's SCHEMA names and orders it."""


class PreparedPart(NamedTuple):
    """The images of some photographs."""

    images: NDArray[np.uint8]
    """(n, S, S, 3)."""
    rows: list[Row]
    """One for each image."""
    skipped: list[Skipped]


def prepare_part(settings: Settings, photographs: Sequence[Photograph]) -> PreparedPart:
    """Make the images of every photograph that can be read and is large enough."""
    crops = [partial(_crops, settings)] * len(photographs)
    places = [photograph.place for photograph in photographs]
    decoder = decoder_named(settings.decoder)
    found = read_squares(settings.root, places, crops, settings.image_size, decoder, intact=True)
    images = [np.empty((0, settings.image_size, settings.image_size, 3), np.uint8)]
    rows: list[Row] = []
    skipped = []
    for photograph, squares in zip(photographs, found, strict=True):
        source = f"{'' if photograph.place.length is None else f'{photograph.id} in '}{photograph.place}"
        if isinstance(squares, BadImage):
            skipped.append(Skipped(source, "bad", squares.reason))
        elif not squares.crops:
            small = f"has {squares.width} x {squares.height} pixels, below {settings.recipe.min_side}"
            skipped.append(Skipped(source, "small", small))
        else:
            images.append(squares.images)
            rows += _rows(photograph, squares, settings.recipe)
    return PreparedPart(np.concatenate(images), rows, skipped)


def _crops(settings: Settings, photograph: bytes) -> Crops:
    recipe, content = settings.recipe, content_key(photograph)

    def crops(width: int, height: int) -> tuple[Crop, ...]:
        if min(width, height) < recipe.min_side:
            return ()
        return tuple(square_crop(settings.seed, content, version, width, height) for version in recipe.versions)

    return crops


def _rows(photograph: Photograph, squares: Squares, recipe: Recipe) -> Iterator[Row]:
    place, size = photograph.place, (squares.width, squares.height)
    for version, (x, y, side, flip) in zip(recipe.versions, squares.crops, strict=True):
        name = photograph.id if recipe.versions == (1,) else f"{photograph.id}_{version}"
        yield name, place.path, place.offset, place.length, version, flip, x, y, side, *size
