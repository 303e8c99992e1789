"""How much a swap changes what it should leave alone."""

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.evaluation.disentangling.swaps import Swapped, Swaps


def changes(swaps: Swaps, made: Swapped, mean_code: NDArray[np.floating]) -> dict[str, float]:
    """Sums over a batch, of which `invariance` takes the ratios.

    Args:
        swaps: B of them.
        made: their scenes.
        mean_code: (4, chunk), the mean code of real images.
    """
    swapped = swaps.mask
    f_mix, f_mix_hat = (f.double().cpu().numpy() for f in (made.f_mix, made.f_mix_hat))
    drift, spread = (((f_mix - other) ** 2).sum(2) for other in (f_mix_hat, mean_code))
    pixels = (made.I_mix - made.I_hat).abs().double().mean(1).cpu().numpy()
    half = pixels.shape[-1] // 2
    change = pixels.reshape(-1, 2, half, 2, half).mean((2, 4)).reshape(-1, 4)
    sums: dict[str, float] = {}
    for where, chosen in (("kept", ~swapped), ("swapped", swapped)):
        sums |= {f"drift {where}": drift[chosen].sum(), f"spread {where}": spread[chosen].sum()}
        sums |= {f"change {where}": change[chosen].sum(), f"count {where}": chosen.sum()}
    return {name: float(value) for name, value in sums.items()}


def invariance(sums: dict[str, float]) -> dict[str, float]:
    """The measures from sums over all swaps."""
    inside, outside = (sums[f"change {where}"] / sums[f"count {where}"] for where in ("swapped", "kept"))
    return {
        "drift of kept chunks": sums["drift kept"] / sums["spread kept"],
        "drift of the swapped chunk": sums["drift swapped"] / sums["spread swapped"],
        "change inside the quadrant": inside,
        "change outside the quadrant": outside,
        "leak": outside / inside,
    }
