"""Sheets of mixed scenes (thesis, Figures 4.2 and 4.3)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lorbms_fast.dataloader.pixels import to_uint8_nhwc
from lorbms_fast.mixing import in_order
from lorbms_fast.rendering.sheet import sheet
from lorbms_fast.tiles import is_grid, tile_of_chunk
from lorbms_fast.types import Batch, Scenes


def collage(I_ref: Tensor, I_q: Tensor, mask: Tensor) -> Tensor:
    """Paste the quadrants of candidates (tiles, N, 3, S, S), or of one for all tiles (1, N, 3, S, S), into I_ref.

    That is mixing on pixels, where the mask (N, tiles) bool is True.
    """
    tiles, side = mask.shape[1], I_ref.shape[-1]
    tile_of_pixel = tile_of_chunk(side * side, tiles, I_ref.device).unflatten(0, (side, side))
    pasted = I_ref
    for i, I_qi in enumerate(I_q.expand(tiles, *I_q.shape[1:])):
        pasted = torch.where((mask[:, i, None, None] & (tile_of_pixel == i))[:, None], I_qi, pasted)
    return pasted


def scene_sheet(batch: Batch, scenes: Scenes, made: Sequence[str] = ("I_mix",)) -> Image.Image:
    """Draw a row for each sample: reference, candidates, collage, and what was made of them, by name (Figure 4.2)."""
    others = [f"I_q{j}" for j in range(1, len(batch.I_q) + 1)] if len(batch.I_q) > 1 else ["I_other"]
    inputs = {"I_ref": batch.I_ref} | dict(zip(others, batch.I_q, strict=True))
    return _rows(inputs | _collage(batch) | {name: getattr(scenes, name) for name in made}, batch.mask)


def transfer_sheet(I_obj: Tensor, I_ref: Tensor, mask: Tensor, I_mix: Tensor) -> Image.Image:
    """Draw object and scene, their collage where tiles have a place, and the mixed scene in a row (Figure 4.3).

    Images are (3, S, S); the mask is (tiles,) bool.
    """
    columns = {"I_obj": I_obj, "I_ref": I_ref}
    if is_grid(len(mask)):
        columns["collage"] = collage(I_ref[None], I_obj[None, None], mask[None])[0]
    columns["I_mix"] = I_mix
    return sheet([[to_uint8_nhwc(image) for image in columns.values()]], list(columns), cell=192)


def interpolation_sheet(batch: Batch, images: Tensor, amounts: Tensor) -> Image.Image:
    """Draw a row for each sample: reference, collage, and `interpolation`'s images (K, N, 3, S, S) at amounts (K,)."""
    made = {f"{amount:.0%}": column for amount, column in zip(amounts.tolist(), images, strict=True)}
    return _rows({"I_ref": batch.I_ref} | _collage(batch) | made, batch.mask)


def film_sheet(batch: Batch, moments: Mapping[str, Scenes]) -> Image.Image:
    """Draw two rows for each sample, a column for each moment of training by name: I_hat, and I_mix.

    In front of them stands what each should come to be: the reference, and the collage.
    """
    aims = {"I_hat": batch.I_ref, "I_mix": collage(batch.I_ref, batch.I_q, batch.mask)}
    columns = {
        what: to_uint8_nhwc(
            torch.stack([aim, *(getattr(scenes, what) for scenes in moments.values())], 1).flatten(0, 1)
        )
        for what, aim in aims.items()
    }
    count, width = len(batch.mask), 1 + len(moments)
    rows = [list(columns[what][i * width : (i + 1) * width]) for i in range(count) for what in columns]
    masks = ["".join(map(str, m)) for m in batch.mask.int().tolist()]
    labels = [label for mask in masks for label in ("I_hat", f"I_mix {mask}")]
    return sheet(rows, ["", *moments], labels, over_labels=in_order(batch.mask.shape[1]))


def _collage(batch: Batch) -> dict[str, Tensor]:
    """Column of collages, if tiles are parts of the picture."""
    return {"collage": collage(batch.I_ref, batch.I_q, batch.mask)} if is_grid(batch.mask.shape[1]) else {}


def _rows(columns: dict[str, Tensor], mask: Tensor) -> Image.Image:
    """Draw a row for each sample, labeled with its mask, and a column for each name."""
    pixels: NDArray[np.uint8] = np.stack([to_uint8_nhwc(column) for column in columns.values()])
    labels = ["".join(map(str, m)) for m in mask.int().tolist()]
    return sheet(list(pixels.swapaxes(0, 1)), list(columns), labels, over_labels=in_order(mask.shape[1]))
