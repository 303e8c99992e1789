"""The interface of decoders: encoded photographs to squares."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.recipes import Crop
from lorbms_fast.dataloader.resize import area_resize

Crops = Callable[[int, int], tuple[Crop, ...]]
"""The squares that are wanted of a photograph, given its upright width and height; none leaves it out."""
CropsOf = Callable[[bytes], Crops]
"""The same, given the encoded photograph first."""


def cut(photograph: NDArray[np.uint8], crop: Crop, side: int) -> NDArray[np.uint8]:
    """Cut a square out of a photograph (H, W, 3), area-resampled to (side, side, 3)."""
    square = photograph[crop.y : crop.y + crop.side, crop.x : crop.x + crop.side]
    return area_resize(square[:, ::-1] if crop.flip else square, side)


class Squares(NamedTuple):
    """The squares of one photograph."""

    width: int
    height: int
    crops: tuple[Crop, ...]
    images: NDArray[np.uint8]
    """(len(crops), side, side, 3)."""

    @classmethod
    def of(
        cls, pixels: Any, crops: Crops, side: int, cut: Callable[[Any, Crop, int], NDArray[np.uint8]] = cut
    ) -> "Squares":
        """Cut the squares out of a whole photograph (H, W, 3), an array or what else `cut` takes."""
        height, width, _ = pixels.shape
        wanted = crops(width, height)
        images = np.array([cut(pixels, crop, side) for crop in wanted], np.uint8).reshape(-1, side, side, 3)
        return cls(width, height, wanted, images)


Decoder = Callable[[Sequence[bytes], Sequence[Crops], int], list[Squares | None]]
"""`decoder(encoded, crops, side)`: the squares of each photograph, or None where it refuses to decode one."""
