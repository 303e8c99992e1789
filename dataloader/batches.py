"""Batches: a reference image, one candidate for each of its quadrants, and the mask that says which are used.

A batch is a function of its number alone. Nothing needs to be saved to go on where a run stopped, and nothing
depends on how many workers there are, or on the device that draws.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.dataloader import counter_rng
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.prefetch import Prefetcher
from lorbms_fast.dataloader.readers import MappedReader, Reader
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.draws import generator
from lorbms_fast.errors import UserError
from lorbms_fast.mixing import mixing_mask, used_candidates
from lorbms_fast.types import Batch, BatchIndices, DrawFn

AUTHOR_RANKS = 9
"""The author's program draws from the nearest nine of the ten neighbours."""
CPU = torch.device("cpu")
DRAWN = 64
"""Number of batches whose indices are drawn together: one by one, drawing would take as long as reading."""


@dataclass(frozen=True)
class BatchSource(ABC):
    """The batches of a run over a store, by number.

    Each pass over the store takes its images in a new random order; images that do not fill a batch at the end of a
    pass wait for the next pass's order.
    """

    store: ImageStore
    batch_size: int
    seed: int
    read: Reader | None = field(default=None, kw_only=True)
    """The reader of images; None: a `MappedReader`."""
    ahead: int = field(default=0, kw_only=True)
    """Number of next batches that are made in the background while one is used."""
    first_image: int = field(default=0, kw_only=True)
    """Number of images passed before the run was resumed, perhaps with another batch size."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size} makes no batches: use 1 or more")
        if self.batch_size > len(self.store):
            raise UserError(
                f"{self.store.path} has {len(self.store)} images: too few for a batch of {self.batch_size}; "
                "lower --batch-size or prepare more images"
            )

    def __getstate__(self) -> dict[str, Any]:
        """Send another process the fields, and not what was drawn here or is being made."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def batches_per_epoch(self) -> int:
        """Full batches in one pass over the store."""
        return len(self.store) // self.batch_size

    def batch_number(self, images: int) -> int:
        """Number of the next batch after so many images; the rest of a pass under way still gives batches."""
        epoch, position = divmod(images, len(self.store))
        return (epoch + 1) * self.batches_per_epoch - (len(self.store) - position) // self.batch_size

    def images_after(self, images: int, batches: int) -> int:
        """Images passed after some more batches; those that a pass left over count as passed."""
        number = self.batch_number(images) + batches
        epoch, position = divmod(number, self.batches_per_epoch)
        if epoch == images // len(self.store):
            return images + batches * self.batch_size
        return epoch * len(self.store) + position * self.batch_size

    def going_on(self, images: int) -> Self:
        """Resume after some images: the next batch begins with the image after them."""
        return replace(self, first_image=images)

    def _start(self, number: int) -> tuple[int, int]:
        """The pass that a batch belongs to, and the batch's start in that pass's order."""
        epoch, position = divmod(number, self.batches_per_epoch)
        pass_under_way, passed = divmod(self.first_image, len(self.store))
        if epoch == pass_under_way and (since := number - self.batch_number(self.first_image)) >= 0:
            return epoch, passed + since * self.batch_size
        return epoch, position * self.batch_size

    def rows(self, number: int) -> NDArray[np.int64]:
        """Rows in the store of a batch's images, (batch_size,)."""
        return self._rows(range(number, number + 1), CPU)[0].numpy()

    def _rows(self, numbers: range, device: torch.device) -> Tensor:
        """Rows of several batches' images, (len(numbers), batch_size)."""
        places = [self._start(number) for number in numbers]
        orders = {epoch: _order(self.seed, epoch, len(self.store), device) for epoch, _ in places}
        return torch.stack([orders[epoch][start : start + self.batch_size] for epoch, start in places])

    def involved(self, number: int) -> NDArray[np.int64]:
        """Rows in the store of all the images that a batch is made of, (kinds, batch_size), reference images first."""
        return self.rows(number)[None]

    def batch(self, number: int) -> Batch:
        """Batch `number`, counted from 0 over the whole run."""
        return self._numbered(number)

    @cached_property
    def _numbered(self) -> Callable[[int], Batch]:
        return Prefetcher(self._make, self.ahead) if self.ahead else self._make

    @abstractmethod
    def _make(self, number: int) -> Batch:
        """Make batch `number`."""

    @abstractmethod
    def sample(self, n: int, draw: int = 0) -> Batch:
        """Draw n images with random candidates for display, beside the run's own batches."""

    def complete(self, batch: Batch, encode: Callable[[Tensor], Tensor]) -> Batch:
        """Choose candidates and masks by the current encoder, (N, 3, S, S) -> (N, chunks, chunk), if they need it."""
        return batch

    def gone(self) -> Path | None:
        """Find a file of images that has been removed or cut short since the store was opened."""
        mapped = self.read is None or isinstance(self.read, MappedReader)
        return self.store.gone() if mapped else None

    def __len__(self) -> int:
        """Full batches in one pass, as `batches_per_epoch`."""
        return self.batches_per_epoch

    def __getitem__(self, number: int) -> Batch:
        """Batch `number` of the whole run, as `batch`, for PyTorch's DataLoader: there is no last one.

        `DataLoader(source, batch_size=None, num_workers=2)` reads the first pass by processes, with
        `sampler=range(len(source), 2 * len(source))` the second; without one each of its passes is the first again.
        """
        if number < 0:
            raise IndexError(f"batch {number}: they are counted from 0, and there is no last one")
        return self.batch(number)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of one pass over the store."""
        first = number * self.batches_per_epoch
        return (self.batch(first + position) for position in range(self.batches_per_epoch))

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the first pass."""
        return self.epoch(0)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Read the images of rows of any shape: (*rows.shape, 3, S, S) float32 in [-1, 1]."""
        return (self.read or MappedReader(self.store, CPU))(rows)


Candidates = Literal["independent", "shared-rank"]
"""Is a rank among the neighbours drawn for each quadrant, or one for all?"""


@dataclass(frozen=True)
class NeighbourBatches(BatchSource):
    """Batches whose candidates are drawn from the neighbours of each quadrant (Algorithm 1)."""

    neighbours: NeighbourTable
    tau: float
    candidates: Candidates = "independent"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates not in get_args(Candidates):
            raise ValueError(f"candidates '{self.candidates}': choose {' or '.join(get_args(Candidates))}")

    def draw(self, number: int) -> BatchIndices:
        """Draw the indices of batch `number`, counted from 0 over the whole run, on the host."""
        block, position = divmod(number, DRAWN)
        rows, mask = self._drawn(block)
        return BatchIndices(rows[position], mask[position])

    @cached_property
    def _drawn(self) -> Callable[[int], BatchIndices]:
        draw = self.drawing(CPU)
        return lru_cache(maxsize=2)(lambda block: draw(range(block * DRAWN, (block + 1) * DRAWN)))

    def drawing(self, device: torch.device) -> DrawFn:
        """Make a function that draws on a device, where it keeps the table of neighbours; all devices draw the same."""
        rows, distances = (
            torch.from_numpy(table).to(device) for table in (self.neighbours.rows, self.neighbours.distances)
        )

        def draw(numbers: range) -> BatchIndices:
            return self._draw(rows, distances, self._rows(numbers, device), self._ranks(numbers, device))

        return draw

    def involved(self, number: int) -> NDArray[np.int64]:
        """Rows of the reference images, then of the candidates for each quadrant, (5, batch_size)."""
        return self.draw(number).rows.numpy()

    def _make(self, number: int) -> Batch:
        return self._assemble(self.draw(number))

    def sample(self, n: int, draw: int = 0) -> Batch:
        """Documented at `BatchSource`."""
        rows = random_rows(self.seed, draw, n, len(self.store))
        return self.of_rows(
            rows, generator(self.seed, 3, draw).integers(self.neighbours.rows.shape[2], size=(len(rows), 4))
        )

    def of_rows(self, rows: NDArray[np.int64], ranks: NDArray[np.int64]) -> Batch:
        """Assemble the batch of reference rows (N,) and candidates of ranks (N, 4), 0 the nearest."""
        table = self.neighbours
        tensors = (torch.from_numpy(array) for array in (table.rows, table.distances, rows, ranks))
        return self._assemble(self._draw(*tensors))

    @property
    def mixing(self) -> dict[str, Any]:
        """The settings of mixing, beside the store and the draw."""
        return {"tau": self.tau, "neighbours": self.neighbours.digest}

    def each_image(self, draw: np.random.Generator, size: int) -> Iterator[Batch]:
        """Yield batches with every image once as reference, in order, and candidates of random ranks."""
        ranks = draw.integers(self.neighbours.rows.shape[2], size=(len(self.store), 4))
        for start in range(0, len(self.store), size):
            rows = np.arange(start, min(start + size, len(self.store)))
            yield self.of_rows(rows, ranks[rows])

    def _draw(self, table_rows: Tensor, table_distances: Tensor, rows: Tensor, ranks: Tensor) -> BatchIndices:
        """The draws of reference rows (..., N) and ranks (..., N, 4)."""
        chosen = rows[..., None], torch.arange(4, device=rows.device), ranks
        mask = mixing_mask(table_distances[chosen].view(-1, 4), self.tau).view(ranks.shape)
        return BatchIndices(torch.cat([rows[..., None, :], table_rows[chosen].transpose(-1, -2)], -2), mask)

    def _assemble(self, draw: BatchIndices) -> Batch:
        images = self.images(draw.rows.numpy())
        return Batch(images[0], images[1:], draw.mask, used_candidates(draw.mask))

    def _ranks(self, numbers: range, device: torch.device) -> Tensor:
        """Ranks of each sample's four candidates among its neighbours, (len(numbers), batch_size, 4)."""
        number = torch.arange(numbers.start, numbers.stop, numbers.step, device=device)[:, None]
        sample = number * self.batch_size + torch.arange(self.batch_size, device=device)
        key = counter_rng.key(self.seed, 1)
        if self.candidates == "shared-rank":
            return counter_rng.below(AUTHOR_RANKS, key, sample)[..., None].expand(-1, -1, 4)
        of_quadrants = 4 * sample[..., None] + torch.arange(4, device=device)
        return counter_rng.below(self.neighbours.rows.shape[2], key, of_quadrants)


def random_rows(seed: int, draw: int, n: int, count: int) -> NDArray[np.int64]:
    """Draw n rows of a store of `count` images, (min(n, count),)."""
    return generator(seed, 2, draw).permutation(count)[:n]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int, device: torch.device) -> Tensor:
    """Order of the images in one pass, cached: for COCO, drawing it takes as long as a batch."""
    return counter_rng.permutation(count, counter_rng.key(seed, 0, epoch), device)
