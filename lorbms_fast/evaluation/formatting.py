"""Numbers as tables show them."""

from collections.abc import Sequence
from typing import Any


def interval(estimate: Sequence[float], digits: int = 1) -> str:
    """Write a value and its 95% interval.

    >>> interval([137.66, 130.2, 145])
    '137.7 [130.2, 145.0]'
    """
    value, low, high = (f"{number:.{digits}f}" for number in estimate)
    return f"{value} [{low}, {high}]"


def percentage(rate: dict[str, Any]) -> str:
    """Write a proportion with its interval; "none" where nothing was asked.

    >>> percentage({"percent": 80, "low": 49.02, "high": 94.33, "of": 10})
    '80.0 [49.0, 94.3] %'
    """
    return "none" if rate["percent"] is None else interval([rate["percent"], rate["low"], rate["high"]]) + " %"


def spread(mean: float, sd: float) -> str:
    """Write a mean and its standard deviation.

    >>> spread(36.5, 0.21)
    '36.5 +- 0.2'
    """
    return f"{mean:.1f} +- {sd:.1f}"
