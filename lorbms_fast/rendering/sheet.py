"""A labeled grid of images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.errors import UserError
from lorbms_fast.rendering.style import INK, PAPER

GAP, HEADER, FONT = 4, 22, 13


def save_sheet(picture: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all; UserError where the path has the ending of something else."""
    if path.suffix.lower() not in ("", ".png"):
        raise UserError(f"{path} would be a PNG by another name: choose one that ends in .png")
    with atomic_write(path) as partial:
        picture.save(partial, format="png")


def sheet(
    rows: Sequence[Sequence[NDArray[np.uint8] | None]],
    columns: Sequence[str],
    row_labels: Sequence[str] | None = None,
    cell: int = 128,
    over_labels: str = "",
) -> Image.Image:
    """Draw images in rows and columns with a label over each column and, if given, left of each row and over these.

    Images are uint8 (H, W, 3), None for an empty cell, whose side is `cell` pixels. Small ones are enlarged without
    smoothing. Raises ValueError if a row is not as long as `columns`, or `row_labels` not as long as `rows`.
    """
    if any(len(row) != len(columns) for row in rows):
        raise ValueError(f"rows of {[len(row) for row in rows]} images do not fit {len(columns)} columns")
    if row_labels is not None and len(row_labels) != len(rows):
        raise ValueError(f"{len(row_labels)} row labels do not fit {len(rows)} rows")
    font = ImageFont.load_default(FONT)
    left = GAP if row_labels is None else GAP + int(max(map(font.getlength, [over_labels, *row_labels]))) + GAP
    size = (left + len(columns) * (cell + GAP), HEADER + len(rows) * (cell + GAP))
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((GAP, HEADER // 2), over_labels, INK, font, anchor="lm")
    for j, label in enumerate(columns):
        draw.text((left + j * (cell + GAP) + cell // 2, HEADER // 2), label, INK, font, anchor="mm")
    for i, row in enumerate(rows):
        top = HEADER + i * (cell + GAP)
        if row_labels is not None:
            draw.text((GAP, top + cell // 2), row_labels[i], INK, font, anchor="lm")
        for j, image in enumerate(row):
            if image is not None:
                page.paste(_fitted(image, cell), (left + j * (cell + GAP), top))
    return page


def _fitted(image: NDArray[np.uint8], cell: int) -> Image.Image:
    small = max(image.shape[:2]) <= cell
    method = Image.Resampling.NEAREST if small else Image.Resampling.BOX
    return Image.fromarray(image).resize((cell, cell), method)
