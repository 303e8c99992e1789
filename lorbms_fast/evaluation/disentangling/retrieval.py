"""Reconstructions and transfers judged by what they resemble: works on any store (docs/evaluation.md)."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.evaluation.disentangling.proportions import Answers, per_quadrant, proportion
from lorbms_fast.evaluation.disentangling.swaps import BATCH, draw_swaps, swap
from lorbms_fast.evaluation.features import weights_fingerprint
from lorbms_fast.evaluation.provenance import measured_on
from lorbms_fast.evaluation.results import Result, cached, percentage
from lorbms_fast.evaluation.split import photographs_of
from lorbms_fast.psnr import blur_levels, psnr
from lorbms_fast.types import Networks

GALLERY = 1000
"""Max. number of images among which the most similar one is looked for."""


def measure_retrieval(
    networks: Networks, store: ImageStore, run: Path, iteration: int, *, pairs: int, seed: int, device: torch.device
) -> Result:
    """Measure the PSNR of reconstructions, and how often a mixed scene's quadrant resembles that which it should most.

    Kept in RUN/evaluation/retrieval. The networks are in evaluation mode, on the device; `pairs` is the number of
    swaps, see `draw_swaps`. Of a large store the first `GALLERY` images take part.
    """
    setting: Result = {"weights": weights_fingerprint(networks), "store": store.digest, "gallery": GALLERY}
    setting |= {"pairs": pairs, "seed": seed}

    def make() -> Result:
        rows = np.arange(min(len(store), GALLERY))
        images = to_float_nchw(np.asarray(store.images[rows])).to(device)
        with torch.inference_mode():
            I_hat = torch.cat([networks.dec(networks.enc(part)) for part in images.split(BATCH)])
        reconstructed, gallery = psnr(I_hat, images).item(), quadrants(images)
        answers: dict[str, list[Answers]] = defaultdict(list)
        swaps = draw_swaps(rows, photographs_of(store), pairs, seed)
        for part, made in swap(networks, store, swaps, device):
            swapped, couples = part.mask, per_quadrant(part.couple)
            seen = most_similar(quadrants(made.I_mix), gallery)
            of_ref, of_obj = per_quadrant(part.ref), per_quadrant(part.obj)
            answers["transferred"].append(Answers((seen == of_obj)[swapped], couples[swapped]))
            answers["kept"].append(Answers((seen == of_ref)[~swapped], couples[~swapped]))
            answers["not replaced"].append(Answers((seen == of_ref)[swapped], couples[swapped]))
        return {
            **measured_on(store, iteration),
            "pairs": len(swaps.ref),
            "psnr": {"I_hat": reconstructed} | blur_levels(images),
            "retrieval": {name: proportion(Answers.together(found)) for name, found in answers.items()},
            "chance": 100 / len(rows),
        }

    return cached(run / "evaluation" / "retrieval" / f"{iteration:08d}-{store.path.name}.json", setting, make)


def retrieval_rows(result: Result) -> list[tuple[str, str, str]]:
    """Write the rows of a table: measure, value with its 95% interval, and of how many."""
    rows = [(f"PSNR, {name}", f"{level:.1f} dB", "") for name, level in result["psnr"].items()]
    rows += [(f"retrieval, {name}", percentage(rate), f"{rate['of']:,}") for name, rate in result["retrieval"].items()]
    return [*rows, ("retrieval, chance", f"{result['chance']:.1f} %", "")]


def quadrants(images: Tensor) -> Tensor:
    """Cut images (N, 3, S, S) into their quadrants' numbers, (4, N, 3 S^2/4)."""
    n, half = len(images), images.shape[-1] // 2
    return images.unflatten(2, (2, half)).unflatten(4, (2, half)).permute(2, 4, 0, 1, 3, 5).reshape(4, n, -1)


def most_similar(made: Tensor, gallery: Tensor) -> NDArray[np.int64]:
    """Find for each quadrant of (4, B, P) the nearest of the same quadrants (4, N, P) by squared distance: (B, 4).

    >>> gallery = torch.tensor([[[0.0], [1.0]]]).expand(4, 2, 1)
    >>> most_similar(torch.tensor([[[0.4]], [[0.6]], [[0.0]], [[1.0]]]), gallery)
    array([[0, 1, 0, 1]])
    """
    return torch.cdist(made, gallery).argmin(2).T.cpu().numpy()
