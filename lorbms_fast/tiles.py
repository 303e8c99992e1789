"""Tiles of an image, and the chunks of its code that belong to them."""

import math

import torch
from torch import Tensor

from lorbms_fast.errors import UserError


def is_grid(tiles: int) -> bool:
    """Tell whether an image can be cut into so many tiles: 4, 9, 16."""
    return math.isqrt(tiles) ** 2 == tiles


def replaced_chunks(mask: Tensor, chunks: int) -> Tensor:
    """Expand a mask of tiles, (N, tiles) bool, to their codes' chunks, (N, chunks); UserError without such tiles."""
    return mask[:, tile_of_chunk(chunks, mask.shape[1], mask.device)]


def tile_of_chunk(chunks: int, tiles: int, device: torch.device | None = None) -> Tensor:
    """Find the tile of every chunk, (chunks,) int64, both counted row by row.

    A tile of a grid has the chunks whose first corner it holds: of 4 x 4 chunks each quadrant has 2 x 2; of 3 x 3 the
    top left one has 2 x 2 and the bottom right one a single one. As many chunks as tiles are the tiles themselves, in
    a grid or not. Raises UserError if there are more tiles than chunks, or not a grid of them.
    """
    if chunks == tiles:
        return torch.arange(tiles, device=device)
    side, per_side = math.isqrt(chunks), math.isqrt(tiles)
    if not is_grid(chunks) or not is_grid(tiles) or per_side > side:
        raise UserError(
            f"a code of {chunks} chunks cannot be mixed in {tiles} tiles: an image of S px has (S / 32)^2 chunks; "
            "change --model.image-size or --model.tiles"
        )
    of_line = torch.arange(side, device=device) * per_side // side
    return (of_line[:, None] * per_side + of_line).flatten()
