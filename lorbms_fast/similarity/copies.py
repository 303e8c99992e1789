"""Copies: images of a store that show the same picture, of which one as a neighbour is enough.

A photograph under two names, a frame of a video that does not move, the same photograph saved again: mixing an image
with its copy brings no new content, and ten copies of one neighbour are one neighbour.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

GRID = 8
"""Number of cells along a side of the grid on which two images are compared."""
TOLERANCE = 5.0
"""Largest mean absolute difference, in levels of 255, that copies have in any cell and channel.
Photographs saved again as JPEG of quality 75 stay below; a shift by 2 of 480 pixels does not."""
BLOCK = 1024
"""Number of images that are compared at a time with all earlier ones of similar brightness."""
LOOKS = 8
"""Max. number of images whose pixels are compared with one image's."""


class Images(Protocol):
    """Images (N, S, S, 3) uint8, in memory or a store's."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice | NDArray[np.int64], /) -> NDArray[np.uint8]: ...


def originals(images: Images) -> NDArray[np.int64]:
    """Find the row of each image's original, its own if it is no copy: (N,) int64.

    In order of brightness every image is compared with the originals so far. Cells' means differ by no more than their
    pixels do, so pixels are compared only where the means on an 8 x 8 grid are similar. Memory: 192 N bytes and blocks.
    """
    grids = (np.rint(_on_grid(images[rows].astype(np.float32))).astype(np.uint8) for rows in _blocks(len(images)))
    means = np.concatenate(list(grids)).reshape(len(images), -1)
    brightness = means.mean(1, dtype=np.float32)
    order = np.argsort(brightness, kind="stable")
    result = np.arange(len(images))
    leaders = order[:0]
    for block in _blocks(len(images)):
        rows = order[block]
        darkest = brightness[rows[0]] - TOLERANCE - 1
        earlier = np.concatenate([leaders[np.searchsorted(brightness[leaders], darkest) :], rows])
        near = _similar(means[rows], means[earlier])
        near &= np.arange(len(earlier)) < len(earlier) - len(rows) + np.arange(len(rows))[:, None]
        for i in np.flatnonzero(near.any(1)):
            candidates = earlier[near[i]]
            candidates = candidates[result[candidates] == candidates]
            distances = np.abs(means[candidates].astype(np.int16) - means[rows[i]]).max(1)
            closest = candidates[np.argsort(distances, kind="stable")[:LOOKS]]
            copied = closest[_pixels_agree(images, rows[i], closest)]
            if len(copied):
                result[rows[i]] = copied[0]
        leaders = np.concatenate([leaders, rows[result[rows] == rows]])
    return result


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, n)) for start in range(0, n, BLOCK)]


def _on_grid(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute means over cells, (B, S, S, 3) to (B, GRID, GRID, 3); where S is no multiple, cells differ by a pixel."""
    starts = np.arange(GRID) * images.shape[1] // GRID
    counts = np.diff(starts, append=images.shape[1]).clip(min=1)  # fewer pixels than cells: some cells share one
    sums = np.add.reduceat(np.add.reduceat(images, starts, 1), starts, 2)
    return (sums / np.outer(counts, counts)[..., None]).astype(np.float32)


def _similar(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mask (A, B) of cell means close enough for copies; by L2, which never excludes what the largest would keep."""
    x, y = a.astype(np.float32), b.astype(np.float32)
    squared = np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * x @ y.T
    return squared <= a.shape[1] * (TOLERANCE + 1) ** 2  # 1: both are rounded


def _pixels_agree(images: Images, row: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
    pixels = images[np.array([row, *others])].astype(np.float32)
    return _on_grid(np.abs(pixels[1:] - pixels[0])).max((1, 2, 3)) <= TOLERANCE
