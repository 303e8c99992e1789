"""Scenes in which one quadrant's chunk comes from another image."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.draws import generator
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.crops import row_batches
from lorbms_fast.kernels.lorbms.chunk_mixing.reference import mix_chunks
from lorbms_fast.progress import tqdm
from lorbms_fast.rendering.scenes import collage
from lorbms_fast.tiles import replaced_chunks
from lorbms_fast.types import Networks

BATCH = 32
SWAPS = 12
"""Purpose of this random draw, unlike others."""


class Swaps(NamedTuple):
    """Rows of images, the quadrant (0 to 3) whose chunks come from the second, and the couple of photographs."""

    ref: NDArray[np.int64]
    obj: NDArray[np.int64]
    quadrant: NDArray[np.int64]
    couple: NDArray[np.int64]
    """No photograph is in two couples, so what is found for one couple tells nothing of another."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Mask (B, 4), True at the swapped quadrant."""
        return np.eye(4, dtype=bool)[self.quadrant]


class Swapped(NamedTuple):
    """Codes (B, chunks, chunk) and images (B, 3, S, S) that networks make of swaps."""

    f_mix: Tensor
    f_mix_hat: Tensor
    """Enc(I_mix)."""
    I_hat: Tensor
    """Dec(Enc(I_ref))."""
    I_mix: Tensor
    """Dec(f_mix)."""
    I_paste: Tensor
    """I_ref with the quadrant of I_obj pasted in: swapping on pixels."""


def draw_swaps(rows: NDArray[np.int64], photographs: NDArray[np.int64], count: int, seed: int) -> Swaps:
    """Draw random couples of photographs, and swaps inside each: two directions, four quadrants, in a random order.

    Couples take turns, so that all are used before one is used again. Of a photograph with several of the `rows`, one
    is drawn for each swap; `photographs` are those of all rows. There are at most eight times as many swaps as couples.
    Raises UserError for a single photograph.
    """
    draw = generator(seed, SWAPS)
    images = {photograph: rows[photographs[rows] == photograph] for photograph in np.unique(photographs[rows])}
    order = draw.permutation(list(images))
    if len(order) < 2:
        raise UserError("all images are of one photograph, and chunks are swapped between two: prepare more")
    couples = order[: len(order) // 2 * 2].reshape(-1, 2)
    ways = draw.permuted(np.tile(np.arange(8), (len(couples), 1)), axis=1)
    turn, couple = np.divmod(np.arange(min(count, 8 * len(couples))), len(couples))
    backwards, quadrant = np.divmod(ways[couple, turn], 4)
    ref, obj = (couples[couple, side] for side in (backwards, 1 - backwards))
    rows_ref, rows_obj = (np.array([draw.choice(images[p]) for p in of]) for of in (ref, obj))
    return Swaps(rows_ref, rows_obj, quadrant, couple)


def swap(networks: Networks, store: ImageStore, swaps: Swaps, device: torch.device) -> Iterator[tuple[Swaps, Swapped]]:
    """Make the scenes of all swaps, batch by batch, under a progress bar."""
    with tqdm(total=len(swaps.ref), desc="swapping chunks", unit="scenes") as bar:
        for rows in row_batches(len(swaps.ref), BATCH):
            part = Swaps(*(values[rows] for values in swaps))
            yield part, _swapped(networks, store, part, device)
            bar.update(len(rows))


@torch.inference_mode()
def _swapped(networks: Networks, store: ImageStore, swaps: Swaps, device: torch.device) -> Swapped:
    I_ref, I_obj = (to_float_nchw(store.images[rows]).to(device) for rows in (swaps.ref, swaps.obj))
    mask = torch.from_numpy(swaps.mask).to(device)
    f_ref, f_obj = networks.enc(torch.cat([I_ref, I_obj])).chunk(2)
    f_mix = mix_chunks(f_ref, f_obj, replaced_chunks(mask, f_ref.shape[1]))
    I_hat, I_mix = networks.dec(torch.cat([f_ref, f_mix])).chunk(2)
    I_paste = collage(I_ref, I_obj[None], mask)
    return Swapped(f_mix, networks.enc(I_mix), I_hat, I_mix, I_paste)
