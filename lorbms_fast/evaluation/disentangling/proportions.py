"""Percentages and how sure they are."""

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.evaluation.datasets.quadrant_objects import NONE
from lorbms_fast.evaluation.distances import NORMAL_95
from lorbms_fast.evaluation.results import Result
from lorbms_fast.evaluation.split import Split


def rate(right: NDArray[np.bool_]) -> Result:
    """The percentage that is right with Wilson's 95% interval, and of how many; None where there are none."""
    n = right.size
    if not n:
        return {"percent": None, "low": None, "high": None, "of": 0}
    p, z2 = float(right.mean()), NORMAL_95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    reach = NORMAL_95 / (1 + z2 / n) * float(np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)))
    return {"percent": 100 * p, "low": 100 * (middle - reach), "high": 100 * (middle + reach), "of": n}


def majority(labels: NDArray[np.int64], split: Split) -> Result:
    """The rate of always naming the category that is most frequent in the learned half, (N, 4) labels."""
    learned, tested = (labels[rows][labels[rows] != NONE] for rows in (split.train, split.test))
    return rate(tested == np.bincount(learned).argmax())
