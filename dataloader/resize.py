"""Area resampling, as the thesis feeds photographs to the networks (Section 4.1)."""

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

    A pixel counts by the part of it that lies in an area: the averages are exact but for float32's rounding.

    Args:
        image: (H, W, C).
        boxes: (x, y, side) of each square in pixels, no smaller than `side`.
        side: of the result.

    Returns:
        (len(boxes), side, side, C).
    """
    height, width, channels = image.shape
    averages = np.empty((len(boxes), side, side, channels), np.uint8)
    by_rows = image.reshape(height, width * channels)
    for average, (x, y, length) in zip(averages, boxes, strict=True):
        rows = _averaged(by_rows, 0, *_shares(y, length, side, height))
        squares = _averaged(rows, 1, *_shares(x, length, side, width, channels))
        np.rint(squares, out=average.reshape(side, side * channels), casting="unsafe")
    return averages


@lru_cache(maxsize=1024)
def _shares(
    start: float, length: float, parts: int, size: int, channels: int = 1
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """How much of each of the equal parts of a stretch its pixels are.

    Args:
        start: of the stretch, among `size` pixels.
        length: of the stretch.
        parts: how many it has.
        size: how many pixels there are.
        channels: of the pixels, neighbours in memory.

    Returns:
        Places (K, parts * channels) of as many neighbours as any part has pixels, and their weights, which sum to 1.
    """
    edges = start + length / parts * np.arange(parts + 1)
    first = edges[:-1].astype(np.intp)
    most = int((np.ceil(edges[1:]) - first).max())
    pixels = first + np.arange(most)[:, None]
    inside = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    weights = (inside.clip(min=0) * (parts / length)).astype(np.float32)
    places = np.minimum(pixels, size - 1)[..., None] * channels + np.arange(channels)
    return places.reshape(most, -1), weights.repeat(channels, axis=1)


def _averaged(
    table: NDArray[Any], axis: int, places: NDArray[np.intp], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Sums over the first dimension of `places`: those entries of a table along an axis, times their weights."""
    if axis == 0:
        weights = weights[..., None]
    sums = np.multiply(table.take(places[0], axis), weights[0], dtype=np.float32)
    for place, weight in zip(places[1:], weights[1:], strict=True):
        sums += np.multiply(table.take(place, axis), weight, dtype=np.float32)
    return sums
