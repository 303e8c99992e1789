"""Contact sheets of neighbours (thesis, Figure 3.7)."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from lorbms_fast.dataloader.neighbour_table import QUADRANTS, NeighbourTable
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.rendering.sheet import sheet
from lorbms_fast.similarity.quadrants import quadrant

SQUARE = 224


def neighbour_sheet(store: ImageStore, table: NeighbourTable, images: Sequence[int]) -> Image.Image:
    """Draw a row for every quadrant of the images: the whole image, the quadrant, its ten neighbours' quadrants.

    Row labels give the quadrant and the nearest and farthest of the ten squared distances.
    """
    rows, labels = [], []
    for i in images:
        whole = store.square(i, SQUARE)
        for q in range(QUADRANTS):
            others = [store.square(int(row), SQUARE) for row in table.rows[i, q]]
            parts = [np.ascontiguousarray(quadrant(image, q)) for image in (whole, *others)]
            rows.append([whole, *parts])
            labels.append(f"q{q + 1}  {_short(table.distances[i, q, 0])} .. {_short(table.distances[i, q, -1])}")
    columns = ["image", "quadrant", "nearest", *(f"{rank}." for rank in range(2, table.rows.shape[2] + 1))]
    return sheet(rows, columns, labels, cell=80)


def _short(distance: float) -> str:
    """Format a distance with three digits, or all before the point: scales differ between features."""
    return f"{distance:,.0f}" if distance >= 100 else f"{distance:.3g}"
