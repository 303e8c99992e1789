"""Numbers as tables show them."""

from collections.abc import Sequence
from typing import Any


def interval(estimate: Sequence[float], digits: int = 1) -> str:
    """A value and its 95% interval."""
    value, low, high = (f"{number:.{digits}f}" for number in estimate)
    return f"{value} [{low}, {high}]"


def percentage(rate: dict[str, Any]) -> str:
    """A rate with its interval; "none" where nothing was asked."""
    return "none" if rate["percent"] is None else interval([rate["percent"], rate["low"], rate["high"]]) + " %"


def spread(mean: float, sd: float) -> str:
    """Mean and standard deviation."""
    return f"{mean:.1f} +- {sd:.1f}"
