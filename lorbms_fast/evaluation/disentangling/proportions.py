"""Percentages of right answers and their confidence, where answers about one photograph depend on each other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.evaluation.datasets.quadrant_objects import NONE
from lorbms_fast.evaluation.distances import NORMAL_95
from lorbms_fast.evaluation.results import Result
from lorbms_fast.evaluation.split import Split

RESAMPLES = 1000


class Answers(NamedTuple):
    """Right and wrong answers, and the cluster of photographs that each is about."""

    right: NDArray[np.bool_]
    cluster: NDArray[np.int64]

    @classmethod
    def together(cls, parts: Sequence["Answers"]) -> "Answers":
        """Join several."""
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


def proportion(answers: Answers, resamples: int = RESAMPLES) -> Result:
    """Compute the percentage that is right, its 95% interval, and of how many; None where nothing was asked.

    A cluster bootstrap: photographs are resampled with all the answers about them, since answers about one photograph
    are alike. The variance that this gives says how many independent answers the interval is worth, and Wilson's
    interval for so many stays within 0 and 100.

    >>> answers = Answers(np.array([True] * 8 + [False] * 2), np.arange(10) // 2)
    >>> {name: round(value) for name, value in proportion(answers).items()}
    {'percent': 80, 'low': 35, 'high': 97, 'of': 10}
    """
    n = len(answers.right)
    if not n:
        return {"percent": None, "low": None, "high": None, "of": 0}
    p = float(answers.right.mean())
    worth = _independent(answers, p, resamples)
    z2 = NORMAL_95**2
    middle = (p + z2 / (2 * worth)) / (1 + z2 / worth)
    reach = NORMAL_95 / (1 + z2 / worth) * float(np.sqrt(p * (1 - p) / worth + z2 / (4 * worth**2)))
    return {"percent": 100 * p, "low": 100 * (middle - reach), "high": 100 * (middle + reach), "of": n}


def majority(labels: NDArray[np.int64], photographs: NDArray[np.int64], split: Split) -> Result:
    """Compute the proportion for always naming the category that is most frequent in the learned half.

    Takes the categories (N, 4) of all quadrants, and the photograph (N,) of each image.
    """
    learned, known = labels[split.train], labels[split.test] != NONE
    most = np.bincount(learned[learned != NONE]).argmax()
    right = (labels[split.test] == most)[known]
    return proportion(Answers(right, per_quadrant(photographs[split.test])[known]))


def per_quadrant(of_image: NDArray[np.int64]) -> NDArray[np.int64]:
    """Repeat numbers of images (N,) for each quadrant: (N, 4)."""
    return np.repeat(of_image[:, None], 4, axis=1)


def _independent(answers: Answers, p: float, resamples: int) -> float:
    """Number of independent answers that are worth as much as these: p (1 - p) / variance."""
    _, cluster = np.unique(answers.cluster, return_inverse=True)
    asked = np.bincount(cluster)
    right = np.bincount(cluster, answers.right)
    clusters = len(asked)
    draw = np.random.Generator(np.random.Philox(0))
    proportions = np.empty(resamples)
    for i in range(resamples):
        drawn = draw.integers(clusters, size=clusters)
        proportions[i] = right[drawn].sum() / asked[drawn].sum()
    variance = float(proportions.var()) * clusters / max(1, clusters - 1)
    if variance == 0:  # all clusters alike: no more than one answer from each
        return float(clusters)
    return min(p * (1 - p) / variance, float(len(answers.right)))
