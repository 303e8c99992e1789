"""Batches whose candidates come from the batch itself: no neighbour search is needed (thesis, Appendix D)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.dataloader.batches import Batches, generator, random_rows
from lorbms_fast.dataloader.readers import Reader
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.mixing import mixing_mask
from lorbms_fast.types import Batch


@dataclass(frozen=True)
class NearestInBatch(Batches):
    """The candidate of a quadrant is the image of the batch whose quadrant has the least L2 from it, by pixels."""

    store: ImageStore
    batch_size: int
    seed: int
    tau: float | None = None
    """Threshold on the squared L2 of pixels in [-1, 1]; None: the median of each batch."""
    read: Reader | None = None
    ahead: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise UserError("--batch-size 1 leaves no other image to take quadrants from: use 2 or more")

    def _make(self, number: int) -> Batch:
        return nearest_in_batch(self.images(self.rows(number)), self.tau)

    def sample(self, n: int, draw: int = 0) -> Batch:
        """n images at random, candidates among a batch's worth of others."""
        rows = random_rows(self.seed, draw, max(n, self.batch_size), len(self.store))
        return nearest_in_batch(self.images(rows), self.tau).first(n)


@dataclass(frozen=True)
class Halves(Batches):
    """Each image of a batch's first half is mixed with its counterpart in the second, by a random mask."""

    store: ImageStore
    batch_size: int
    seed: int
    tiles: int
    read: Reader | None = None
    ahead: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size % 2:
            raise UserError(f"--batch-size {self.batch_size} has no halves to mix: use an even one")

    def _make(self, number: int) -> Batch:
        images = self.images(self.rows(number).reshape(2, -1))
        return Batch(images[0], images[1:], self._mask(1, number, len(images[0])))

    def sample(self, n: int, draw: int = 0) -> Batch:
        """n images at random, each with another one and a random mask."""
        rows = random_rows(self.seed, draw, 2 * n, len(self.store))
        images = self.images(rows[: len(rows) // 2 * 2].reshape(2, -1))
        return Batch(images[0], images[1:], self._mask(3, draw, len(images[0])))

    @property
    def mixing(self) -> dict[str, Any]:
        """What decides how scenes are mixed, beside the store and the draw."""
        return {"tiles": self.tiles}

    def each_image(self, draw: np.random.Generator, size: int) -> Iterator[Batch]:
        """Every image of the store once as reference, in its order, `size` a batch; another one and a random mask."""
        n = len(self.store)
        others = (np.arange(n) + draw.integers(1, n, size=n)) % n
        masks = random_mask(draw, n, self.tiles)
        for start in range(0, n, size):
            rows = np.arange(start, min(start + size, n))
            images = self.images(np.stack([rows, others[rows]]))
            yield Batch(images[0], images[1:], torch.from_numpy(masks[rows]))

    def _mask(self, purpose: int, number: int, n: int) -> Tensor:
        return torch.from_numpy(random_mask(generator(self.seed, purpose, number), n, self.tiles))


def nearest_in_batch(images: Tensor, tau: float | None) -> Batch:
    """All images of a batch with their candidates and, by Algorithm 1, masks.

    Args:
        images: (N, 3, S, S), N > 1.
        tau: threshold on the squared L2 of quadrants' pixels; None: their median.
    """
    half = images.shape[-1] // 2
    quadrants = images.unfold(2, half, half).unfold(3, half, half).permute(2, 3, 0, 1, 4, 5).flatten(3).flatten(0, 1)
    between = torch.cdist(quadrants, quadrants).square()  # (4, N, N)
    nearest = between.masked_fill(torch.eye(len(images), dtype=torch.bool, device=images.device), torch.inf).min(2)
    distances = nearest.values.T
    return Batch(images, images[nearest.indices], mixing_mask(distances, distances.median() if tau is None else tau))


def random_mask(draw: np.random.Generator, n: int, tiles: int) -> NDArray[np.bool_]:
    """(n, tiles): every tile replaced or not by a coin, and one more coin's side where all would be alike."""
    mask = draw.integers(2, size=(n, tiles)).astype(bool)
    other = draw.integers(tiles, size=n)
    alike = (mask == mask[:, :1]).all(1)
    mask[alike, other[alike]] ^= True
    return mask
