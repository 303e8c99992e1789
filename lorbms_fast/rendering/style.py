"""The style of plots by matplotlib and sheets by Pillow; the page's is in app/static/style.css."""

from typing import Any

from matplotlib.rcsetup import cycler

INK, MUTED, PAPER = "#1d2733", "#6b7785", "#ffffff"
COLORS = ("#0b6e99", "#d9730d", "#4f8a3c", "#9b3d7a")
"""Colors of lines, distinct in print and for people who do not see red and green."""

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
    "axes.prop_cycle": cycler(color=COLORS),
    "grid.color": "#dfe4ea",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.facecolor": PAPER,
}
"""Settings for `matplotlib.rc_context`."""
