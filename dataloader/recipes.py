"""The data sets of the thesis (Table 4.1), and the squares of a photograph that become images."""

from dataclasses import dataclass
from hashlib import blake2b
from struct import unpack
from typing import Literal, NamedTuple

COCO_SMALLEST = 200


@dataclass(frozen=True)
class Recipe:
    """Rules for the photographs that are kept, and the versions that are made of each."""

    name: str = "folder"
    """Key of the draw, beside the seed: recipes draw different photographs."""
    part: Literal["train", "test"] | None = None
    """The part of COCO that the photographs must be of."""
    versions: tuple[int, ...] = (1,)
    """Versions of each photograph, numbers of `VERSIONS`."""
    min_side: int = 1
    """Photographs with a side below are left out."""
    min_boxes: int = 0
    """Photographs with fewer annotated boxes are left out."""
    draw: int | None = None
    """Keep that many photographs, drawn at random."""


RECIPES = {
    "folder": Recipe(),
    "tr_v4": Recipe("tr_v4", "train", versions=(1, 2), min_side=COCO_SMALLEST, min_boxes=4),
    "tr_v5": Recipe("tr_v5", "train", versions=(1, 2, 3, 4, 5), min_side=COCO_SMALLEST, min_boxes=4),
    "tr_v6": Recipe("tr_v6", "train", min_side=COCO_SMALLEST, draw=10_482),
    "te_v2": Recipe("te_v2", "test", min_side=COCO_SMALLEST, draw=10_492),
}

VERSIONS = {1: (1.0, False), 2: (1.0, True), 3: (0.6, False), 4: (0.7, True), 5: (0.95, True)}
"""Version -> (size of a random crop relative to the photograph, whether it is mirrored first)."""


class Crop(NamedTuple):
    """A square of a photograph, in its own pixels; mirrored after it was cut out."""

    x: int
    y: int
    side: int
    flip: bool


def content_key(photograph: bytes) -> str:
    """Name a file's content: the same photograph under two names is the same.

    >>> content_key(b"a photograph")
    'd99d6b150c2f74477e8bd763078d75d3'
    """
    return blake2b(photograph, digest_size=16).hexdigest()


def square_crop(seed: int, content: str, version: int, width: int, height: int) -> Crop:
    """Draw the square for one of `VERSIONS` of a photograph, whose `content_key` is `content`: mirror, crop, cut.

    The photograph is mirrored if the version says so, cropped at random to the version's size, and the largest square
    is cut out of that at a random place.

    >>> square_crop(0, content_key(b"a photograph"), 1, 640, 480)
    Crop(x=37, y=0, side=480, flip=False)
    """
    scale, flip = VERSIONS[version]
    # Four 32-bit numbers by a hash, at a fifth of a generator's cost.
    draws = iter(unpack("<4I", blake2b(repr((seed, content, version)).encode(), digest_size=16).digest()))
    crop_width, crop_height = max(1, round(scale * width)), max(1, round(scale * height))
    side = min(crop_width, crop_height)
    x = _below(width - crop_width + 1, next(draws)) + _below(crop_width - side + 1, next(draws))
    y = _below(height - crop_height + 1, next(draws)) + _below(crop_height - side + 1, next(draws))
    return Crop(width - side - x if flip else x, y, side, flip)


def _below(n: int, bits: int) -> int:
    """Map 32 random bits to an integer 0 to n - 1."""
    return n * bits >> 32
