"""Area resampling, as the thesis feeds photographs to the networks (Section 4.1)."""

from collections.abc import Callable, Sequence
from ctypes import CDLL, c_int64, c_void_p
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lorbms_fast.cpp import library

_SOURCE = Path(__file__).with_suffix(".cpp")


def area_resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resample uint8 (H, W, C) to (side, side, C).

    Shrinking averages over each output pixel's area in the input, parts of input pixels counting by the part covered,
    and rounds; the result is within one grey level of that definition. Where an axis has fewer than `side` pixels it
    is enlarged by linear interpolation instead: areas smaller than a pixel would give blocks.

    >>> area_resize(np.array([[[0], [100]], [[20], [40]]], np.uint8), 1).tolist()
    [[[40]]]
    """
    height, width = image.shape[:2]
    shrunk = _resize(image, min(width, side), min(height, side), cv2.INTER_AREA)
    return _resize(shrunk, side, side, cv2.INTER_LINEAR)


def center_crop(photograph: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut the largest central square out of uint8 (H, W, 3) and resample it to (side, side, 3).

    >>> center_crop(np.arange(60, dtype=np.uint8).reshape(4, 5, 3), 2)[..., 0].tolist()
    [[9, 15], [39, 45]]
    """
    height, width, _ = photograph.shape
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    return area_resize(photograph[top : top + square, left : left + square], side)


def _resize(image: NDArray[np.uint8], width: int, height: int, method: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, image.shape[2])


def area_squares(image: NDArray[np.uint8], boxes: Sequence[tuple[float, float, float]], side: int) -> NDArray[np.uint8]:
    """Average squares of an image, whose corners may lie inside pixels, over (side, side) equal areas, and round.

    A pixel counts by the part of it that lies in an area: the averages are exact but for float32's rounding. Boxes are
    (x, y, side) of each square in pixels of the image (H, W, C), no smaller than `side`.
    """
    height, width, channels = image.shape
    lines = np.ascontiguousarray(image).reshape(height, width * channels)
    averages = np.empty((len(boxes), side, side, channels), np.uint8)
    loops = library(_SOURCE)
    for square, (x, y, length) in zip(averages.reshape(len(boxes), side, side * channels), boxes, strict=True):
        of_rows, of_columns = _shares(y, length, side, height), _shares(x, length, side, width, channels)
        if loops is None:
            np.rint(_summed(_summed(lines, 0, of_rows), 1, of_columns), out=square, casting="unsafe")
        else:  # the same bytes, three times as fast
            _loop(loops)(
                lines.ctypes.data, lines.shape[1], *_for_a_loop(of_rows), *_for_a_loop(of_columns), square.ctypes.data
            )
    return averages


class Shares(NamedTuple):
    """Shares of a stretch's pixels in each of its equal parts."""

    places: NDArray[np.int64]
    """(K, parts) positions, K the most pixels that any part has."""
    weights: NDArray[np.float32]
    """(K, parts), which sum to 1."""


@lru_cache(maxsize=1024)
def _shares(start: float, length: float, parts: int, size: int, channels: int = 1) -> Shares:
    """Shares of a stretch that begins at `start` among `size` pixels, by part and channel."""
    edges = start + length / parts * np.arange(parts + 1)
    first = edges[:-1].astype(np.int64)
    most = int((np.ceil(edges[1:]) - first).max())
    pixels = first + np.arange(most)[:, None]
    inside = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    weights = (inside.clip(min=0) * (parts / length)).astype(np.float32)
    places = np.minimum(pixels, size - 1)[..., None] * channels + np.arange(channels)
    return Shares(places.reshape(most, -1), weights.repeat(channels, axis=1))


def _summed(table: NDArray[Any], axis: int, shares: Shares) -> NDArray[np.float32]:
    """Weighted sum of every part's entries along an axis."""
    weights = shares.weights[..., None] if axis == 0 else shares.weights
    sums = np.multiply(table.take(shares.places[0], axis), weights[0], dtype=np.float32)
    for places, weight in zip(shares.places[1:], weights[1:], strict=True):
        sums += np.multiply(table.take(places, axis), weight, dtype=np.float32)
    return sums


@cache
def _loop(loops: CDLL) -> Callable[..., None]:
    shares: list[Any] = [c_void_p, c_void_p, c_int64, c_int64]
    loops.average_areas.restype, loops.average_areas.argtypes = None, [c_void_p, c_int64, *shares, *shares, c_void_p]
    return loops.average_areas


def _for_a_loop(shares: Shares) -> tuple[int, int, int, int]:
    return shares.places.ctypes.data, shares.weights.ctypes.data, *shares.places.shape
