"""Plots of a run's losses."""

import json
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lorbms_fast.engine.log import read_lines
from lorbms_fast.files import whole_file

PANELS = {
    "reconstruction": ("L_rec_hat", "L_rec_prime"),
    "PSNR of I_hat, dB": ("psnr",),
    "adversarial": ("L_adv", "L_D"),
    "classifier": ("L_cls", "L_cls_G"),
}


def draw_curves(metrics: Path, target: Path) -> None:
    """Plot every loss of a `metrics.jsonl` against the iterations, smoothed over a fiftieth of the run, as a PNG.

    A run too short for its first entry gets no plot.
    """
    entries = [json.loads(line) for line in read_lines(metrics)]
    if not entries:
        return
    iterations = [entry["iteration"] for entry in entries]
    width = max(1, len(entries) // 50)
    with matplotlib.rc_context({"font.size": 9, "axes.grid": True, "grid.alpha": 0.3}):
        figure = Figure(figsize=(10, 6), layout="constrained")
        for axes, (title, names) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            for name in names:
                values = np.array([entry[name] for entry in entries])
                (line,) = axes.plot(iterations, values, alpha=0.25, linewidth=0.8)
                smooth = np.convolve(values, np.full(width, 1 / width), mode="valid")
                axes.plot(iterations[width - 1 :], smooth, color=line.get_color(), label=name)
            axes.set(title=title, xlabel="iteration")
            axes.legend()
        with whole_file(target) as partial:
            figure.savefig(partial, format="png", dpi=110)
