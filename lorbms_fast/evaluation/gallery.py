"""The best of many transfers of a run, on one sheet."""

import numpy as np
import torch
from PIL import Image

from lorbms_fast.dataloader.pixels import to_uint8_nhwc
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.evaluation.disentangling.swaps import draw_swaps, swap
from lorbms_fast.evaluation.split import photographs_of
from lorbms_fast.mixing import QUADRANTS, in_order
from lorbms_fast.psnr import psnr
from lorbms_fast.rendering.sheet import sheet
from lorbms_fast.types import Networks

TRANSFERS = 64
"""Number of transfers that the best are chosen from."""
COLUMNS = ("I_obj", "I_ref", "collage", "I_mix")


def gallery(networks: Networks, store: ImageStore, best: int = 8) -> tuple[Image.Image, str]:
    """Draw the transfers that come nearest to their collages, by PSNR, and say how the others do.

    One quadrant is transferred, between couples of photographs that are drawn at random. The networks are in
    evaluation mode on the CPU. Returns the sheet, and what it shows in words.
    """
    swaps = draw_swaps(np.arange(len(store)), photographs_of(store), TRANSFERS, 0)
    found = []
    for part, made in swap(networks, store, swaps, torch.device("cpu")):
        pasted, mixed = to_uint8_nhwc(made.I_paste), to_uint8_nhwc(made.I_mix)
        for i, (ref, obj) in enumerate(zip(part.ref, part.obj, strict=True)):
            images = [np.asarray(store.images[obj]), np.asarray(store.images[ref]), pasted[i], mixed[i]]
            near = psnr(made.I_mix[i : i + 1], made.I_paste[i : i + 1]).item()
            found.append((near, "".join("01"[taken] for taken in part.mask[i].astype(int)), images))
    found.sort(key=lambda one: -one[0])
    levels = np.array([near for near, *_ in found])
    shown = found[:best]
    words = (
        f"The best {len(shown)} of {len(found)} transfers of one quadrant between random pictures, by the PSNR of "
        f"I_mix against the collage: {levels[: len(shown)].min():.1f} to {levels.max():.1f} dB; "
        f"half of all reach {np.median(levels):.1f} dB. Digits of a mask: {QUADRANTS}."
    )
    pictures, masks = [images for *_, images in shown], [mask for _, mask, _ in shown]
    return sheet(pictures, COLUMNS, masks, cell=96, over_labels=in_order(4)), words
