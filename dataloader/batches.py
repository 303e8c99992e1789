"""Batches: a reference image, one candidate for each of its quadrants, and the mask that says which are used.

A batch is a function of its number alone. Nothing needs to be saved to go on where a run stopped, and nothing
depends on how many workers there are. Images and mask are tensors and offer DLPack: CuPy, JAX and numpy take them
without a copy (`cupy.from_dlpack(batch.I_ref)`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.dataloader.ahead import ReadAhead
from lorbms_fast.dataloader.readers import Mapped, Reader
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.mixing import mixing_mask
from lorbms_fast.similarity.table import NeighbourTable

AUTHOR_RANKS = 9
"""The author's program draws from the nearest nine of the ten neighbours."""
DRAWN = 64
"""Batches whose candidates are drawn at a time."""


class Draw(NamedTuple):
    """Which images make up a batch, on the host."""

    rows: Tensor
    """(5, N) int64, rows of the store: reference images, then the candidates for quadrant 1, 2, 3, 4."""
    mask: Tensor
    """(N, 4) bool, see `Batch`."""


class Batch(NamedTuple):
    """Reference images, a candidate for each of their quadrants, and which quadrants the candidates replace."""

    I_ref: Tensor
    """(N, 3, S, S) float32 in [-1, 1]."""
    I_q: Tensor
    """(4, N, 3, S, S) float32 in [-1, 1]: the candidates for quadrant 1, then those for quadrant 2, 3, 4. Variants: one
    for each tile, or one for all, (1, N, 3, S, S)."""
    mask: Tensor
    """(N, 4) bool, True where the quadrant is replaced (m_i = 1); in variants (N, tiles)."""
    used: Tensor | None = None
    """(2, K) int64, `used_candidates(mask)`, possibly padded; where it is None the mask is searched for it, which on a
    GPU makes the host wait."""

    def first(self, n: int) -> "Batch":
        """The first n samples."""
        return Batch(self.I_ref[:n], self.I_q[:, :n], self.mask[:n])

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on another device, the search of its mask made before."""
        used = used_candidates(self.mask) if self.used is None else self.used
        tensors = [self.I_ref, self.I_q, self.mask, used]
        if torch.device(device).type == "cuda":  # the host goes on at once only from pinned memory
            tensors = [tensor if tensor.is_cuda else tensor.pin_memory() for tensor in tensors]
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def used_candidates(mask: Tensor, padded_to: int | None = None) -> Tensor:
    """Quadrant and sample of every candidate that a mask uses, by quadrant, then by sample.

    Args:
        mask: (N, 4) bool; on a GPU the host waits for it.
        padded_to: repeat the first until there are this many.

    Returns:
        (2, K) int64, K the number of replaced quadrants or `padded_to`.
    """
    used = mask.T.nonzero().T
    if padded_to is None:
        return used
    return torch.cat([used, used[:, :1].expand(2, padded_to - used.shape[1])], dim=1)


class Batches(ABC):
    """The batches of a run over a store, by number.

    Each pass over the store takes its images in a new random order; images that do not fill a batch at the end of a
    pass wait for the next pass's order.
    """

    store: ImageStore
    batch_size: int
    seed: int
    read: Reader | None
    """How images are read; None: from the mapped files."""
    ahead: int
    """How many of the next batches are made in the background while one is used."""

    def __post_init__(self) -> None:
        if self.batch_size > len(self.store):
            raise UserError(
                f"{self.store.path} has {len(self.store)} images: too few for a batch of {self.batch_size}; "
                "lower --batch-size or prepare more images"
            )

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in one pass over the store."""
        return len(self.store) // self.batch_size

    def rows(self, number: int) -> NDArray[np.int64]:
        """Rows in the store of a batch's images, (batch_size,)."""
        epoch, position = divmod(number, self.batches_per_epoch)
        return _order(self.seed, epoch, len(self.store))[position * self.batch_size : (position + 1) * self.batch_size]

    def involved(self, number: int) -> NDArray[np.int64]:
        """Rows in the store of all the images that a batch is made of, (kinds, batch_size), reference images first."""
        return self.rows(number)[None]

    def batch(self, number: int) -> Batch:
        """Batch `number`, counted from 0 over the whole run."""
        return self._numbered(number)

    @cached_property
    def _numbered(self) -> Callable[[int], Batch]:
        return ReadAhead(self._make, self.ahead) if self.ahead else self._make

    @abstractmethod
    def _make(self, number: int) -> Batch:
        """Batch `number`, from scratch."""

    @abstractmethod
    def sample(self, n: int, draw: int = 0) -> Batch:
        """n images at random, with random candidates: for looking at, beside the run's own batches."""

    def gone(self) -> Path | None:
        """A file that batches are still to be read from and that is not there any more, or not whole."""
        mapped = self.read is None or isinstance(self.read, Mapped)
        return self.store.gone() if mapped else None

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one pass over the store."""
        first = number * self.batches_per_epoch
        return (self.batch(first + position) for position in range(self.batches_per_epoch))

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the first pass."""
        return self.epoch(0)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """The images of rows of any shape, (*rows.shape, 3, S, S) float32 in [-1, 1]."""
        return (self.read or Mapped(self.store, torch.device("cpu")))(rows)


@dataclass(frozen=True)
class BatchSource(Batches):
    """Batches whose candidates are drawn from the neighbours of each quadrant (Algorithm 1)."""

    store: ImageStore
    neighbours: NeighbourTable
    batch_size: int
    seed: int
    tau: float
    candidates: Literal["independent", "shared-rank"] = "independent"
    read: Reader | None = None
    ahead: int = 0

    def draw(self, number: int) -> Draw:
        """What batch `number`, counted from 0 over the whole run, is made of."""
        rows, mask = self._drawn(number // DRAWN)
        return Draw(rows[number % DRAWN], mask[number % DRAWN])

    @cached_property
    def _drawn(self) -> Callable[[int], tuple[Tensor, Tensor]]:
        return lru_cache(maxsize=2)(self._draw_many)

    def _draw_many(self, block: int) -> tuple[Tensor, Tensor]:
        """Rows (DRAWN, 5, N) and masks (DRAWN, N, 4) of batches that follow each other: one by one, drawing would take
        as long as reading."""
        rows = np.stack([self.rows(number) for number in range(block * DRAWN, (block + 1) * DRAWN)])
        drawn = self._draw(rows.ravel(), self._ranks(block, rows.size))
        return drawn.rows.view(5, *rows.shape).transpose(0, 1).contiguous(), drawn.mask.view(*rows.shape, 4)

    def involved(self, number: int) -> NDArray[np.int64]:
        """Rows of the reference images, then of the candidates for each quadrant, (5, batch_size)."""
        return self.draw(number).rows.numpy()

    def _make(self, number: int) -> Batch:
        return self._assemble(self.draw(number))

    def sample(self, n: int, draw: int = 0) -> Batch:
        """n images at random, with random candidates: for looking at, beside the run's own batches."""
        rows = random_rows(self.seed, draw, n, len(self.store))
        return self.of_rows(
            rows, generator(self.seed, 3, draw).integers(self.neighbours.rows.shape[2], size=(len(rows), 4))
        )

    def of_rows(self, rows: NDArray[np.int64], ranks: NDArray[np.int64]) -> Batch:
        """The batch of given reference rows (N,) with the candidates of given ranks (N, 4), 0 the nearest."""
        return self._assemble(self._draw(rows, ranks))

    @property
    def mixing(self) -> dict[str, Any]:
        """What decides how scenes are mixed, beside the store and the draw."""
        return {"tau": self.tau}

    def each_image(self, draw: np.random.Generator, size: int) -> Iterator[Batch]:
        """Every image of the store once as reference, in its order, `size` a batch; candidates of random ranks."""
        ranks = draw.integers(self.neighbours.rows.shape[2], size=(len(self.store), 4))
        for start in range(0, len(self.store), size):
            rows = np.arange(start, min(start + size, len(self.store)))
            yield self.of_rows(rows, ranks[rows])

    def _draw(self, rows: NDArray[np.int64], ranks: NDArray[np.int64]) -> Draw:
        quadrant = np.arange(4)
        candidates = self.neighbours.rows[rows[:, None], quadrant, ranks]
        distances = self.neighbours.distances[rows[:, None], quadrant, ranks]
        mask = mixing_mask(torch.from_numpy(distances), self.tau)
        return Draw(torch.from_numpy(np.concatenate([rows[None], candidates.T])), mask)

    def _assemble(self, draw: Draw) -> Batch:
        images = self.images(draw.rows.numpy())
        return Batch(images[0], images[1:], draw.mask, used_candidates(draw.mask))

    def _ranks(self, block: int, n: int) -> NDArray[np.int64]:
        draw = generator(self.seed, 1, block)
        if self.candidates == "shared-rank":
            return draw.integers(AUTHOR_RANKS, size=(n, 1)).repeat(4, axis=1)
        return draw.integers(self.neighbours.rows.shape[2], size=(n, 4))


def generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """Random numbers of a run for one of its purposes and one of its batches, passes or blocks of batches."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, purpose, number))))


def random_rows(seed: int, draw: int, n: int, count: int) -> NDArray[np.int64]:
    """n rows of a store of `count` images at random, (at most n,)."""
    return generator(seed, 2, draw).permutation(count)[:n]


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The images of one pass in their order: drawn once a pass, as for COCO it takes as long as a batch."""
    order = generator(seed, 0, epoch).permutation(count)
    order.flags.writeable = False
    return order
