"""Crops of labelled pictures: random views for training, a central one for testing.

The protocol of Table 4.3, in the form TensorFlow's "inception preprocessing" gave it. A view is a
function of (seed, number of the view, number of the picture), whatever was made before.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.draws import generator
from lorbms_fast.evaluation.datasets.labelled import Labelled

AREA, ASPECT = (1 / 3, 1.0), (3 / 4, 4 / 3)
BRIGHTNESS, SATURATION = 32 / 255, (0.5, 1.5)
CENTER = 0.85
"""Share of each side that the test's crop keeps."""
ATTEMPTS = 100


class Patch(NamedTuple):
    """A rectangle of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


def training_crops(data: Labelled, rows: Sequence[int] | NDArray[np.int64], side: int, seed: int, view: int) -> Tensor:
    """Make one random view of each picture: patch, resize, flip, brightness and saturation.

    The patch covers 1/3 to 1 of the picture's area at an aspect of 3/4 to 4/3 and is resized bilinearly or
    bicubically, half of the time each; brightness moves by up to 32/255 and saturation is scaled by 0.5 to 1.5, in
    random order.

    The number of the view, such as the epoch's, makes new ones. Returns (len(rows), 3, side, side) float32 in [-1, 1].
    """
    views = []
    for row in rows:
        draw = generator(seed, view, int(row))
        picture = data.pictures[row]
        height, width, _ = picture.shape
        patch = random_patch(height, width, draw)
        method = cv2.INTER_LINEAR if draw.random() < 0.5 else cv2.INTER_CUBIC
        resized = _resized(picture, patch, side, method)
        x = resized[..., ::-1] if draw.random() < 0.5 else resized
        brighter, factor = np.float32(draw.uniform(-BRIGHTNESS, BRIGHTNESS)), np.float32(draw.uniform(*SATURATION))
        views.append(saturated(x + brighter, factor) if draw.random() < 0.5 else saturated(x, factor) + brighter)
    return torch.from_numpy(np.stack(views)).clamp(0, 1) * 2 - 1


def central_crops(data: Labelled, rows: Sequence[int] | NDArray[np.int64], side: int) -> Tensor:
    """Cut out the central 85% of each side, resized bilinearly: (len(rows), 3, side, side) float32 in [-1, 1]."""
    views = []
    for row in rows:
        picture = data.pictures[row]
        height, width = picture.shape[:2]
        top, left = (int(length * (1 - CENTER) / 2) for length in (height, width))
        views.append(_resized(picture, Patch(top, left, height - 2 * top, width - 2 * left), side, cv2.INTER_LINEAR))
    return torch.from_numpy(np.stack(views)) * 2 - 1


def random_patch(height: int, width: int, draw: np.random.Generator) -> Patch:
    """Draw a patch of random area and aspect at a random place; the whole picture if none of a hundred draws fits."""
    for _ in range(ATTEMPTS):
        area, aspect = draw.uniform(*AREA) * height * width, draw.uniform(*ASPECT)
        patch_width, patch_height = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < patch_width <= width and 0 < patch_height <= height:
            top, left = draw.integers(height - patch_height + 1), draw.integers(width - patch_width + 1)
            return Patch(int(top), int(left), patch_height, patch_width)
    return Patch(0, 0, height, width)


def saturated(x: NDArray[np.floating], factor: np.floating | float) -> NDArray[np.floating]:
    """Scale the saturation of HSV of RGB (3, ...) by a factor, at most to 1; hue and value stay.

    Value is V = max(R, G, B) and saturation S = (V - min) / V. With H and V fixed every channel is V (1 - S k), k
    depending on the hue alone, so scaling S scales each channel's distance from V.

    >>> red, grey = [0.8, 0.4, 0.4], [0.5, 0.5, 0.5]
    >>> saturated(np.array([red, grey]).T, 2.0).T.round(6).tolist()
    [[0.8, 0.0, 0.0], [0.5, 0.5, 0.5]]
    """
    V, lowest = x.max(0), x.min(0)
    room = np.maximum(V, 0) / np.maximum(V - lowest, 1e-12)  # 1 / S
    return V - (V - x) * np.minimum(factor, room)


def row_batches(rows: int | NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Divide rows, or all of so many, into batches of at most `size`.

    >>> [batch.tolist() for batch in row_batches(7, 3)]
    [[0, 1, 2], [3, 4, 5], [6]]
    """
    every = np.arange(rows) if isinstance(rows, int) else rows
    return [every[i : i + size] for i in range(0, len(every), size)]


def shuffled_batch(
    rows: NDArray[np.int64], size: int, iteration: int, seed: int, purpose: int
) -> tuple[int, NDArray[np.int64]]:
    """Draw the epoch and the rows of an iteration's batch; rows that fill none wait for the next epoch's order."""
    epoch, position = divmod(iteration, len(rows) // size)
    return epoch, generator(seed, purpose, epoch).permutation(rows)[position * size :][:size]


def _resized(picture: NDArray[np.uint8], patch: Patch, side: int, method: int) -> NDArray[np.float32]:
    """Resize the patch to (3, side, side), float32 in 0..1; bicubic values beyond are clamped later."""
    part = picture[patch.top : patch.top + patch.height, patch.left : patch.left + patch.width]
    resized = cv2.resize(np.ascontiguousarray(part, np.float32), (side, side), interpolation=method)
    return np.ascontiguousarray(resized.transpose(2, 0, 1)) / np.float32(255)
