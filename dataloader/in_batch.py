"""Batches whose candidates come from the batch itself: no neighbour search is needed (Appendix D.1 and D.2)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.dataloader.batches import BatchSource, random_rows
from lorbms_fast.draws import generator
from lorbms_fast.errors import UserError
from lorbms_fast.mixing import threshold_mask
from lorbms_fast.tiles import tile_of_chunk
from lorbms_fast.types import Batch


@dataclass(frozen=True)
class NearestInBatch(BatchSource):
    """The candidate of a quadrant is the image of the batch whose quadrant's code has the least L2 from its own.

    Codes are the networks' business, so a batch replaces nothing until `complete` has seen them.
    """

    tau: float | None = None
    """Threshold on the squared L2 of codes; None: the median of each batch."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise UserError("--batch-size 1 leaves no other image to take quadrants from: use 2 or more")

    def _make(self, number: int) -> Batch:
        return _unmixed(self.images(self.rows(number)))

    def sample(self, n: int, draw: int = 0) -> Batch:
        """Draw n images, or a whole batch if that is more, so that there are candidates among them."""
        return _unmixed(self.images(random_rows(self.seed, draw, max(n, self.batch_size), len(self.store))))

    @torch.no_grad()
    def complete(self, batch: Batch, encode: Callable[[Tensor], Tensor]) -> Batch:
        """Choose each quadrant's candidate, and by the threshold whether it replaces the quadrant."""
        return nearest_in_batch(batch.I_ref, encode(batch.I_ref), self.tau)


@dataclass(frozen=True)
class Halves(BatchSource):
    """Each image of a batch's first half is mixed with its counterpart in the second, by a random mask."""

    tiles: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % 2:
            raise UserError(f"--batch-size {self.batch_size} has no halves to mix: use an even one")

    def _make(self, number: int) -> Batch:
        images = self.images(self.rows(number).reshape(2, -1))
        return Batch(images[0], images[1:], self._mask(1, number, len(images[0])))

    def sample(self, n: int, draw: int = 0) -> Batch:
        """Draw n images, each with another one and a random mask."""
        rows = random_rows(self.seed, draw, 2 * n, len(self.store))
        images = self.images(rows[: len(rows) // 2 * 2].reshape(2, -1))
        return Batch(images[0], images[1:], self._mask(3, draw, len(images[0])))

    @property
    def mixing(self) -> dict[str, Any]:
        """The settings of mixing, beside the store and the draw."""
        return {"tiles": self.tiles}

    def each_image(self, draw: np.random.Generator, size: int) -> Iterator[Batch]:
        """Yield batches with every image once as reference, in order, each with another one and a random mask."""
        n = len(self.store)
        others = (np.arange(n) + draw.integers(1, n, size=n)) % n
        masks = random_mask(draw, n, self.tiles)
        for start in range(0, n, size):
            rows = np.arange(start, min(start + size, n))
            images = self.images(np.stack([rows, others[rows]]))
            yield Batch(images[0], images[1:], torch.from_numpy(masks[rows]))

    def _mask(self, purpose: int, number: int, n: int) -> Tensor:
        return torch.from_numpy(random_mask(generator(self.seed, purpose, number), n, self.tiles))


def nearest_in_batch(images: Tensor, codes: Tensor, tau: float | None) -> Batch:
    """Choose candidates among the other images (N, 3, S, S), N > 1, of a batch by their codes, and the mask (D.2).

    `tau` is the threshold on the squared L2 between two codes of a tile; None for the median of the smallest ones.
    """
    between = distances_between(codes)
    nearest = between.masked_fill(torch.eye(len(images), dtype=torch.bool, device=images.device), torch.inf).min(2)
    least = nearest.values.T
    return Batch(images, images[nearest.indices], threshold_mask(least, least.median() if tau is None else tau))


def distances_between(codes: Tensor) -> Tensor:
    """Compute the squared L2 between the codes (N, chunks, chunk) of any two images by quadrant, (4, N, N) float32."""
    by_chunk = codes.transpose(0, 1).float()
    squared = torch.cdist(by_chunk, by_chunk, compute_mode="donot_use_mm_for_euclid_dist").square()
    between = squared.new_zeros(4, len(codes), len(codes))
    return between.index_add(0, tile_of_chunk(len(by_chunk), 4, codes.device), squared)


def _unmixed(images: Tensor) -> Batch:
    """Batch of images in which nothing is replaced."""
    return Batch(images, images[None], torch.zeros(len(images), 4, dtype=torch.bool))


def random_mask(draw: np.random.Generator, n: int, tiles: int) -> NDArray[np.bool_]:
    """Draw a mask (n, tiles) by fair coins; where all tiles would agree, one random tile is flipped."""
    mask = draw.integers(2, size=(n, tiles)).astype(bool)
    other = draw.integers(tiles, size=n)
    alike = (mask == mask[:, :1]).all(1)
    mask[alike, other[alike]] ^= True
    return mask
