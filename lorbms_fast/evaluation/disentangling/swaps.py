"""Scenes in which one quadrant's chunk comes from another image."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.dataloader.pixels import to_network
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.evaluation.crops import row_batches
from lorbms_fast.kernels.lorbms.chunk_mixing.reference import mix_chunks
from lorbms_fast.progress import tqdm
from lorbms_fast.rendering.scenes import collage
from lorbms_fast.tiles import replaced_chunks
from lorbms_fast.types import Networks

BATCH = 32
SWAPS = 12
"""Distinguishes this random draw from others."""


class Swaps(NamedTuple):
    """Rows of images and the quadrant (0 to 3) whose chunks come from the second."""

    ref: NDArray[np.int64]
    obj: NDArray[np.int64]
    quadrant: NDArray[np.int64]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(B, 4), True at the swapped quadrant."""
        return np.eye(4, dtype=bool)[self.quadrant]


class Swapped(NamedTuple):
    """What the networks make of swaps: codes (B, chunks, chunk) and images (B, 3, S, S)."""

    f_mix: Tensor
    f_mix_hat: Tensor
    """Enc(I_mix)."""
    I_hat: Tensor
    """Dec(Enc(I_ref))."""
    I_mix: Tensor
    """Dec(f_mix)."""
    I_paste: Tensor
    """I_ref with the quadrant of I_obj pasted in: what swapping is on pixels."""


def draw_swaps(rows: NDArray[np.int64], count: int, seed: int) -> Swaps:
    """Random pairs of different rows, and a random quadrant for each."""
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, SWAPS))))
    first = generator.integers(len(rows), size=count)
    second = (first + generator.integers(1, len(rows), size=count)) % len(rows)
    return Swaps(rows[first], rows[second], generator.integers(4, size=count))


def swap(networks: Networks, store: ImageStore, swaps: Swaps, device: torch.device) -> Iterator[tuple[Swaps, Swapped]]:
    """Make the scenes of all swaps, batch by batch, under a progress bar."""
    with tqdm(total=len(swaps.ref), desc="swapping chunks", unit="scenes") as bar:
        for rows in row_batches(len(swaps.ref), BATCH):
            part = Swaps(*(values[rows.start : rows.stop] for values in swaps))
            yield part, _swapped(networks, store, part, device)
            bar.update(len(rows))


@torch.inference_mode()
def _swapped(networks: Networks, store: ImageStore, swaps: Swaps, device: torch.device) -> Swapped:
    I_ref, I_obj = (to_network(store.images[rows]).to(device) for rows in (swaps.ref, swaps.obj))
    mask = torch.from_numpy(swaps.mask).to(device)
    f_ref, f_obj = networks.enc(torch.cat([I_ref, I_obj])).chunk(2)
    f_mix = mix_chunks(f_ref, f_obj, replaced_chunks(mask, f_ref.shape[1]))
    I_hat, I_mix = networks.dec(torch.cat([f_ref, f_mix])).chunk(2)
    I_paste = collage(I_ref, I_obj[None], mask)
    return Swapped(f_mix, networks.enc(I_mix), I_hat, I_mix, I_paste)
