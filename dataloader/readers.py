"""Ways to read images by their rows: from the mapped files, from memory, from the photographs themselves.

All give the same pixels where they can: mapped and resident read the store, streamed decodes its sources again and is
for sides that the store does not have.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.dataloader.decoders import dali, decoder_named
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.shards import counted_from_0
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.kernels.lorbms.batch_assembly import assemble_batch, cpp
from lorbms_fast.progress import tqdm

Reader = Callable[[NDArray[np.int64]], Tensor]
"""Rows of any shape, as `counted_from_0` takes them, to float32 (*rows.shape, 3, S, S) in [-1, 1]."""
Mode = Literal["auto", "mapped", "resident", "streamed"]

SHARE_OF_GPU = 0.5
"""Largest share of a GPU's free memory that `auto` takes for the images."""
PARTS = 8
"""Max. number of threads that decode parts of a batch."""


def reader(store: ImageStore, mode: Mode, side: int, device: torch.device) -> Reader:
    """Make the reader of a mode; `auto` is resident on a GPU that has room, else mapped.

    Images have `side` pixels and come on `device`. Raises UserError if the store's have another side, unless streamed,
    and ValueError if there is no such mode.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"reader '{mode}': choose one of {', '.join(get_args(Mode))}")
    if mode == "streamed":
        return StreamedReader(store, side, device)
    if store.side != side:
        raise UserError(
            f"{store.path} has images of {store.side} px, {side} are wanted: prepare again with --image-size {side}, "
            "or decode photographs at every step with --images streamed"
        )
    if mode == "resident" or (mode == "auto" and _fits(store, device)):
        return ResidentReader.of(store, device)
    return MappedReader(store, device)


@dataclass(frozen=True)
class MappedReader:
    """Reads a store's files, which the system keeps in memory as far as there is room, onto a device."""

    store: ImageStore
    device: torch.device

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Documented at `Reader`."""
        if self.device.type == "cpu" and cpp.runs(torch.float32):
            return cpp.assemble_at(torch.from_numpy(self.store.images.addresses(rows)), self.store.images.shape[1:3])
        images = torch.from_numpy(self.store.images[np.asarray(rows)])
        if self.device.type == "cuda":  # bytes travel, not the four times larger floats
            images = images.pin_memory().to(self.device, non_blocking=True)
        return to_float_nchw(images)


@dataclass(frozen=True)
class ResidentReader:
    """Reads images that lie on a device, uint8 (count, S, S, 3), as one gather."""

    images: Tensor

    @classmethod
    def of(cls, store: ImageStore, device: torch.device) -> "ResidentReader":
        """Read the whole store into the memory of `device` once.

        Takes N * S^2 * 3 bytes: 4.16 GB for tr_v5 at 64 px.
        """
        images = torch.empty(store.images.shape, dtype=torch.uint8, device=device)
        start = 0
        with tqdm(total=images.nbytes, desc=f"images to {device}", unit="B", unit_scale=True) as bar:
            for shard in store.images.files:
                images[start : start + len(shard)] = torch.from_numpy(np.array(shard))
                start += len(shard)
                bar.update(shard.nbytes)
        return cls(images)

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Documented at `Reader`; on the images' device."""
        wanted = torch.from_numpy(counted_from_0(rows, len(self.images)))
        return assemble_batch(self.images, wanted.to(self.images.device), channels_last=True)


@dataclass(frozen=True)
class StreamedReader:
    """Decodes the source photographs at every read: on a GPU by DALI into its memory, else by threads on the CPU.

    Where DALI cannot be used, a GPU's batches are decoded on the CPU too, and a line says why.
    """

    store: ImageStore
    side: int
    device: torch.device
    threads: int = PARTS

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Documented at `Reader`; UserError where a photograph is gone or is another one now."""
        rows = counted_from_0(rows, len(self.store))
        if self._by_dali:
            return to_float_nchw(decode_on(self.device, self.store, rows, self.side))
        decoder = decoder_named("scaled")
        parts = np.array_split(rows.ravel(), min(self.threads, rows.size) or 1)
        pool = _pool(self.threads, os.getpid())
        decoded = pool.map(lambda part: self.store.squares(part.tolist(), self.side, decoder), parts)
        images = torch.from_numpy(np.concatenate(list(decoded)).reshape(*rows.shape, self.side, self.side, 3))
        return to_float_nchw(images.to(self.device))

    @cached_property
    def _by_dali(self) -> bool:
        if self.device.type != "cuda":
            return False
        if obstacle := dali.obstacle(self.device):
            print(f"photographs are decoded on the CPU: {obstacle}", flush=True)
        return not obstacle


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Make a process's pool of threads, once: a process that is forked has none of its parent's."""
    return ThreadPoolExecutor(threads)


def decode_on(device: torch.device, store: ImageStore, rows: NDArray[np.int64], side: int) -> Tensor:
    """Decode source photographs by DALI, those it refuses by the reference: uint8 (*rows.shape, side, side, 3) there.

    Raises UserError if one is gone or is another one now, or DALI is not installed.
    """
    flat = rows.ravel().tolist()
    entries = store.entries(flat)
    wholes = dali.decoded([entry.place.read(store.root) for entry in entries], device)
    images = torch.empty((len(flat), side, side, 3), dtype=torch.uint8, device=device)
    for image, row, entry, whole in zip(images, flat, entries, wholes, strict=True):
        if whole is not None and whole.shape[:2] == (entry.height, entry.width):
            image.copy_(dali.square(whole, entry.crop, side))
        else:
            image.copy_(torch.from_numpy(store.square(row, side)))
    return images.view(*rows.shape, side, side, 3)


def _fits(store: ImageStore, device: torch.device) -> bool:
    if device.type != "cuda":
        return False  # the system's own cache of files does the same
    free, _ = torch.cuda.mem_get_info(device)
    return int(np.prod(store.images.shape)) <= SHARE_OF_GPU * free
