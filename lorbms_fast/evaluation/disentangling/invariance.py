"""Changes that a swap makes where it should make none."""

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.evaluation.disentangling.swaps import Swapped, Swaps
from lorbms_fast.tiles import replaced_chunks


def changes(swaps: Swaps, made: Swapped, mean_code: NDArray[np.floating]) -> dict[str, float]:
    """Sum up over a batch what `invariance` takes the ratios of; `mean_code` is (chunks, chunk) of real images."""
    swapped = swaps.mask
    swapped_chunks = replaced_chunks(torch.from_numpy(swapped), made.f_mix.shape[1]).numpy()
    f_mix, f_mix_hat = (f.double().cpu().numpy() for f in (made.f_mix, made.f_mix_hat))
    drift, spread = (((f_mix - other) ** 2).sum(2) for other in (f_mix_hat, mean_code))
    pixels = (made.I_mix - made.I_hat).abs().double().mean(1).cpu().numpy()
    half = pixels.shape[-1] // 2
    change = pixels.reshape(-1, 2, half, 2, half).mean((2, 4)).reshape(-1, 4)
    sums: dict[str, float] = {}
    for where, quadrants, chunks in (("kept", ~swapped, ~swapped_chunks), ("swapped", swapped, swapped_chunks)):
        sums |= {f"drift {where}": drift[chunks].sum(), f"spread {where}": spread[chunks].sum()}
        sums |= {f"change {where}": change[quadrants].sum(), f"count {where}": quadrants.sum()}
    return {name: float(value) for name, value in sums.items()}


def invariance(sums: dict[str, float]) -> dict[str, float]:
    """Compute the measures from sums over all swaps.

    >>> sums = {"drift kept": 1, "spread kept": 10, "drift swapped": 1, "spread swapped": 4}
    >>> sums |= {"change kept": 3, "count kept": 3, "change swapped": 4, "count swapped": 1}
    >>> invariance(sums)["drift of kept chunks"], invariance(sums)["leak"]
    (0.1, 0.25)
    """
    inside, outside = (sums[f"change {where}"] / sums[f"count {where}"] for where in ("swapped", "kept"))
    return {
        "drift of kept chunks": sums["drift kept"] / sums["spread kept"],
        "drift of the swapped chunk": sums["drift swapped"] / sums["spread swapped"],
        "change inside the quadrant": inside,
        "change outside the quadrant": outside,
        "leak": outside / inside,
    }
