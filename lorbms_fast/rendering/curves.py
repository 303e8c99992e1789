"""Plots of a run's losses."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.engine.log import read_entries
from lorbms_fast.errors import UserError
from lorbms_fast.rendering.style import MUTED, PLOT

PANELS = {
    "reconstruction": ("L_rec_hat", "L_rec_prime"),
    "PSNR of I_hat, dB": ("psnr",),
    "adversarial": ("L_adv", "L_D"),
    "classifier": ("L_cls", "L_cls_G"),
}


def draw_curves(metrics: Path, target: Path, levels: Mapping[str, float] = MappingProxyType({})) -> None:
    """Write `curves` as a PNG; a run too short for its first entry gets no plot."""
    figure = curves(metrics, levels)
    if figure is not None:
        with atomic_write(target) as partial:
            figure.savefig(partial, format="png", dpi=110)


def curves(metrics: Path, levels: Mapping[str, float] = MappingProxyType({})) -> Figure | None:
    """Plot every loss of a `metrics.jsonl`, smoothed over a fiftieth of the run; None when there is no entry yet.

    `levels`, PSNRs in dB by name, are drawn across the panel of that of I_hat.
    """
    entries = read_entries(metrics)
    if not entries:
        return None
    shown = ("iteration", *(name for names in PANELS.values() for name in names))
    if missing := [name for name in shown if any(name not in entry for entry in entries)]:
        raise UserError(f"{metrics} has entries without {missing[0]}: remove it, the run goes on without")
    iterations = [entry["iteration"] for entry in entries]
    width = max(1, len(entries) // 50)
    with matplotlib.rc_context(PLOT):
        figure = Figure(figsize=(10, 6), layout="constrained")
        for axes, (title, names) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            for name in names:
                values = np.array([entry[name] for entry in entries])
                (line,) = axes.plot(iterations, values, alpha=0.25, linewidth=0.8)
                smooth = np.convolve(values, np.full(width, 1 / width), mode="valid")
                axes.plot(iterations[width - 1 :], smooth, color=line.get_color(), label=name)
            if "psnr" in names:
                for name, level in levels.items():
                    axes.axhline(level, color=MUTED, linewidth=0.8, linestyle="dotted")
                    axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom")
            axes.set(title=title, xlabel="iteration")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.legend()
    return figure
