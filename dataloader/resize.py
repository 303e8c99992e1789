"""Area resampling, as the thesis feeds photographs to the networks (Section 4.1)."""

import math
from collections.abc import Sequence
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
    exact_in_int32 = image.shape[0] * image.shape[1] * 255 < 2**31
    integral = cv2.integral(image, sdepth=cv2.CV_32S if exact_in_int32 else cv2.CV_64F)
    averages = np.empty((len(boxes), side, side, image.shape[2]), np.uint8)
    for average, (x, y, width) in zip(averages, boxes, strict=True):
        left, right = int(x), min(math.ceil(x + width) + 1, integral.shape[1])
        rows = np.diff(_between(integral[:, left:right], y, width, side, axis=0), axis=0)
        sums = np.diff(_between(rows, x - left, width, side, axis=1), axis=1)
        average[:] = np.rint(sums * (side / width) ** 2)
    return averages


def _between(table: NDArray[Any], start: float, length: float, parts: int, axis: int) -> NDArray[np.float64]:
    """Linear interpolation along an axis at the ends of `parts` equal parts, of which there are parts + 1."""
    last = table.shape[axis] - 1
    positions = np.minimum(start + length / parts * np.arange(parts + 1), last)
    below = np.minimum(positions.astype(np.intp), last - 1)
    weight = (positions - below).reshape(-1, *(1,) * (table.ndim - 1 - axis))
    lower = table.take(below, axis)
    between: NDArray[np.float64] = (table.take(below + 1, axis) - lower) * weight
    between += lower
    return between
