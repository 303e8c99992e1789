"""Results on disk: one JSON file each, made again only when its setting changes; and numbers as tables show them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lorbms_fast.atomic_io import check_writable, write_json

Result = dict[str, Any]


def cached(path: Path, setting: Result, make: Callable[[], Result]) -> Result:
    """Read the result of a setting, in plain values, from a JSON file; else make and write it.

    Raises UserError where it could not be written, before it is made.
    """
    setting = json.loads(json.dumps(setting))
    if (found := read_result(path)) is not None and found.get("setting") == setting:
        return found
    check_writable(path.parent)  # measuring may take hours
    result = make() | {"setting": setting}
    write_json(path, result)
    return result


def read_result(path: Path) -> Result | None:
    """Read a result; None where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def mean_and_sd(values: list[float]) -> tuple[float, float]:
    """Compute mean and standard deviation (over n - 1; 0 for one value).

    >>> mean_and_sd([1.0, 2.0, 3.0])
    (2.0, 1.0)
    """
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


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
