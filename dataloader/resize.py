"""Area resampling, as the thesis feeds photographs to the networks (Section 4.1)."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def area_resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resample uint8 (H, W, C) to (side, side, C).

    Shrinking averages over each output pixel's area in the input, parts of input pixels counting by the part covered,
    and rounds; the result is within one grey level of that definition. Where an axis has fewer than `side` pixels it
    is enlarged by linear interpolation instead: areas smaller than a pixel would give blocks.
    """
    height, width = image.shape[:2]
    shrunk = _resize(image, min(width, side), min(height, side), cv2.INTER_AREA)
    return _resize(shrunk, side, side, cv2.INTER_LINEAR)


def _resize(image: NDArray[np.uint8], width: int, height: int, method: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, image.shape[2])


def area_squares(image: NDArray[np.uint8], boxes: Sequence[tuple[float, float, float]], side: int) -> NDArray[np.uint8]:
    """Average squares of an image, whose corners may lie inside pixels, over (side, side) equal areas, and round.

    The sum over any rectangle is a difference of the integral image at its corners, which between pixels is linear in
    each direction: the averages are exact, and all squares share one integral image.

    Args:
        image: (H, W, C).
        boxes: (x, y, side) of each square in pixels, no smaller than `side`.
        side: of the result.

    Returns:
        (len(boxes), side, side, C).
    """
    averages = np.empty((len(boxes), side, side, image.shape[2]), np.uint8)
    if not boxes:
        return averages
    left, top = (int(min(box[axis] for box in boxes)) for axis in (0, 1))
    right, bottom = (math.ceil(max(box[axis] + box[2] for box in boxes)) for axis in (0, 1))
    image = image[top:bottom, left:right]
    exact_in_int32 = image.shape[0] * image.shape[1] * 255 < 2**31
    integral = cv2.integral(image, sdepth=cv2.CV_32S if exact_in_int32 else cv2.CV_64F)
    for average, (x, y, width) in zip(averages, boxes, strict=True):
        x0, y0 = int(x), int(y)
        of_box = integral[y0 - top : math.ceil(y + width) - top + 1, x0 - left : math.ceil(x + width) - left + 1]
        rows = _sums(of_box, *_ends(y - y0, width, side, len(of_box) - 1), axis=0)
        sums = _sums(rows, *_ends(x - x0, width, side, of_box.shape[1] - 1), axis=1)
        sums *= (side / width) ** 2
        np.rint(sums, out=average, casting="unsafe")
    return averages


@lru_cache(maxsize=4096)
def _ends(start: float, length: float, parts: int, last: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Where `parts` equal parts of a stretch begin and end: entries of a table, at most `last`, and how far beyond."""
    positions = np.minimum(start + length / parts * np.arange(parts + 1), last)
    below = np.minimum(positions.astype(np.intp), last - 1)
    return below, (positions - below).astype(np.float32)


def _sums(table: NDArray[Any], below: NDArray[np.intp], weight: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """What each part adds to a running sum that is linear between its entries.

    Whole entries are subtracted as they stand: float32 has to hold no more than what is between two of them.
    """
    lower = table.take(below, axis)
    beyond = (table.take(below + 1, axis) - lower).astype(np.float32)
    beyond *= weight.reshape(-1, *(1,) * (table.ndim - 1 - axis))
    sums = np.diff(lower, axis=axis).astype(np.float32)
    sums += np.diff(beyond, axis=axis)
    return sums
