"""Curves of PSNR and L1 (Section 3.6.1)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.evaluation.results import Result
from lorbms_fast.rendering.style import PLOT


def draw_calibration(results: Sequence[Result], target: Path) -> None:
    """Draw a line for each variant, on held-out images, as a PNG."""
    with matplotlib.rc_context(PLOT):
        figure = Figure(figsize=(10, 4), layout="constrained")
        for axes, (key, title) in zip(figure.subplots(1, 2), {"psnr": "PSNR, dB", "l1": "L1"}.items(), strict=True):
            for result in results:
                points = result["curve"]
                axes.plot([p["iteration"] for p in points], [p[key] for p in points], label=result["variant"])
            axes.set(title=f"{title}, held-out images", xlabel="iteration")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
        with atomic_write(target) as partial:
            figure.savefig(partial, format="png", dpi=110)
