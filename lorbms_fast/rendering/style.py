"""One look for everything that is drawn: plots by matplotlib, sheets by Pillow, the page (app/static/style.css)."""

from typing import Any

from matplotlib.rcsetup import cycler

INK, MUTED, PAPER = "#1d2733", "#6b7785", "#ffffff"
COLOURS = ("#0b6e99", "#d9730d", "#4f8a3c", "#9b3d7a")
"""Of lines: told apart by people who do not see red and green, and in print."""

PLOT: dict[Any, Any] = {
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=COLOURS),
    "grid.color": "#dfe4ea",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
}
"""For `matplotlib.rc_context`."""
