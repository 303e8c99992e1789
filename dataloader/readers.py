"""Ways to read images by their rows: from the mapped files, from memory, from the photographs themselves.

All give the same pixels where they can: mapped and resident read the store, streamed decodes its sources again and is
for sides that the store does not have.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.dataloader.decoders import dali, decoder_named
from lorbms_fast.dataloader.pixels import to_network
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.kernels.lorbms.batch_assembly import assemble_batch, cpp
from lorbms_fast.progress import tqdm

Reader = Callable[[NDArray[np.int64]], Tensor]
"""Rows of any shape to float32 (*rows.shape, 3, S, S) in [-1, 1]."""
Mode = Literal["auto", "mapped", "resident", "streamed"]

SHARE_OF_GPU = 0.5
"""How much of a GPU's free memory the images may take when nobody asked for them to be there."""
PARTS = 8
"""A batch of photographs is decoded in that many parts at a time, at most."""


def reader(store: ImageStore, mode: Mode, side: int, device: torch.device, threads: int = PARTS) -> Reader:
    """The reader of a mode; `auto` is resident on a GPU that has room, else mapped.

    Args:
        store: what to read.
        mode: how.
        side: of the images in pixels.
        device: where the images are wanted.
        threads: that decode, for streamed.

    Raises:
        UserError: the store's images have another side, and the mode is not streamed.
    """
    if mode == "streamed":
        return streamed(store, side, device, threads)
    if store.side != side:
        raise UserError(
            f"{store.path} has images of {store.side} px, {side} are wanted: prepare again with --image-size {side}, "
            "or decode photographs at every step with --images streamed"
        )
    if mode == "resident" or (mode == "auto" and _fits(store, device)):
        return resident(store, device)
    return Mapped(store, device)


@dataclass(frozen=True)
class Mapped:
    """Reads a store's files, which the system keeps in memory as far as there is room, onto a device."""

    store: ImageStore
    device: torch.device

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Documented at `Reader`."""
        if self.device.type == "cpu" and cpp.runs(torch.float32):
            return cpp.assemble_at(torch.from_numpy(self.store.images.addresses(rows)), self.store.images.shape[1:3])
        images = torch.from_numpy(self.store.images[rows])
        if self.device.type == "cuda":  # bytes travel, not the four times larger floats
            images = images.pin_memory().to(self.device, non_blocking=True)
        return to_network(images)


def resident(store: ImageStore, device: torch.device) -> "Resident":
    """Read the whole store into the memory of `device` once: then a batch is one gather.

    Takes N * S^2 * 3 bytes: 4.16 GB for tr_v5 at 64 px.
    """
    images = torch.empty(store.images.shape, dtype=torch.uint8, device=device)
    start = 0
    with tqdm(total=images.nbytes, desc=f"images to {device}", unit="B", unit_scale=True) as bar:
        for shard in store.images.files:
            images[start : start + len(shard)] = torch.from_numpy(np.array(shard))
            start += len(shard)
            bar.update(shard.nbytes)

    return Resident(images)


@dataclass(frozen=True)
class Resident:
    """A reader of images that lie on a device, uint8 (count, S, S, 3)."""

    images: Tensor

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Documented at `Reader`; on the images' device."""
        return assemble_batch(self.images, torch.from_numpy(rows).to(self.images.device), channels_last=True)


def streamed(store: ImageStore, side: int, device: torch.device, threads: int = PARTS) -> Reader:
    """Decode the source photographs at every read: on a GPU by DALI into its memory, else by threads on the CPU.

    Raises:
        UserError: when called, a photograph is gone or is another one now.
    """
    if device.type == "cuda":
        return lambda rows: to_network(decode_on(device, store, rows, side))
    decoder = decoder_named("scaled")
    pool = ThreadPoolExecutor(threads)

    def read(rows: NDArray[np.int64]) -> Tensor:
        parts = np.array_split(rows.ravel(), min(threads, rows.size))
        images = np.concatenate(list(pool.map(lambda part: store.squares(part.tolist(), side, decoder), parts)))
        return to_network(images.reshape(*rows.shape, side, side, 3))

    return read


def decode_on(device: torch.device, store: ImageStore, rows: NDArray[np.int64], side: int) -> Tensor:
    """Decode source photographs by DALI into a device's memory, and those it refuses by the reference.

    Returns:
        uint8 (*rows.shape, side, side, 3), on the device.

    Raises:
        UserError: a photograph is gone or is another one now, or DALI is not installed.
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
