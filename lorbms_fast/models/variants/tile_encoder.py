"""An encoder that sees one tile of a picture at a time (Appendix D.1)."""

import math

from torch import Tensor

from lorbms_fast.config import ModelConfig
from lorbms_fast.errors import UserError
from lorbms_fast.models import encoder

SMALLEST = 32
"""Side in pixels of a tile that becomes a single chunk."""


class Encoder(encoder.Encoder):
    """The encoder of Table 3.1 on every tile of a grid by itself: a tile's code depends on no other tile."""

    sees_everything = True  # of its tile: its receptive field ends where the tile does

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.tiles = config.tiles
        self._check(config.image_size)

    def forward(self, images: Tensor) -> Tensor:
        """Encode (N, 3, S, S) images in [-1, 1] as (N, (S/32)^2, chunk), chunks row by row over the whole image."""
        self._check(images.shape[-1])
        t = math.isqrt(self.tiles)
        tiles = images.unflatten(2, (t, -1)).unflatten(4, (t, -1)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        codes = super().forward(tiles)  # (N t^2, chunks of a tile, chunk)
        side = math.isqrt(codes.shape[1])
        by_place = codes.unflatten(0, (-1, t, t)).unflatten(3, (side, side))
        return by_place.transpose(2, 3).flatten(1, 4)

    def _check(self, image_size: int) -> None:
        per_side = math.isqrt(self.tiles)
        if per_side**2 != self.tiles or image_size % (SMALLEST * per_side):
            raise UserError(
                f"images of {image_size} px cannot be cut into {self.tiles} square tiles of a multiple of {SMALLEST} "
                "px: change their size or --model.tiles"
            )
