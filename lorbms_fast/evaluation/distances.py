"""Distances between two sets of images in a feature space, and how sure they are.

Confidence intervals come from the delete-a-group jackknife (Quenouille, Tukey): the images are dealt into groups, the
statistic is computed without each group in turn, and its spread gives the standard error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.progress import tqdm

GROUPS = 20
NORMAL_95 = 1.959964
SPLITS = 10
"""Number of splits of the inception score (Salimans et al., 2016)."""

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A number and its 95% confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Moments:
    """Count, sum and sum of outer products of features (N, D)."""

    count: int
    total: Array
    outer: Array

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> "Moments":
        """Accumulate features (N, D) in float64."""
        x = np.asarray(features, np.float64)
        return cls(len(x), x.sum(0), x.T @ x)

    def without(self, other: "Moments") -> "Moments":
        """Subtract the other's."""
        return Moments(self.count - other.count, self.total - other.total, self.outer - other.outer)

    def mean_and_covariance(self) -> tuple[Array, Array]:
        """Compute mean (D,) and covariance (D, D) over n - 1."""
        mean = self.total / self.count
        return mean, (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)


def frechet_distance(one: Moments, other: Moments) -> float:
    """Compute `|mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))`, the squared distance of two normal distributions.

    The trace of the root is the sum of the roots of the eigenvalues of C_1^(1/2) C_2 C_1^(1/2), which is symmetric.

    >>> x = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]])
    >>> round(frechet_distance(Moments.of(x), Moments.of(x + [3, 0])), 6)
    9.0
    """
    (mu_1, C_1), (mu_2, C_2) = one.mean_and_covariance(), other.mean_and_covariance()
    values, vectors = np.linalg.eigh(C_1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    eigenvalues = np.linalg.eigvalsh(root @ C_2 @ root)
    trace = np.trace(C_1) + np.trace(C_2) - 2 * np.sqrt(eigenvalues.clip(0)).sum()
    return max(0.0, float(((mu_1 - mu_2) ** 2).sum() + trace))  # of equal ones rounding leaves less


def frechet(real: NDArray[np.floating], made: NDArray[np.floating]) -> Estimate:
    """Estimate the Frechet distance between features (N, D) of real and (M, D) of made images.

    >>> draw = np.random.default_rng(0)
    >>> found = frechet(draw.normal(0, 1, (500, 2)), draw.normal(1, 1, (500, 2)))
    >>> found.low < 2 < found.high  # the distance between the distributions themselves
    True
    """
    groups = min(GROUPS, len(real), len(made))
    real, made = _in_their_span(real, made)
    of_real, of_made = Moments.of(real), Moments.of(made)
    left_out = [
        frechet_distance(of_real.without(Moments.of(real[g::groups])), of_made.without(Moments.of(made[g::groups])))
        for g in tqdm(range(groups), desc="confidence of the Frechet distance", unit="groups", leave=False)
    ]
    return jackknife(frechet_distance(of_real, of_made), left_out)


def halves(real: NDArray[np.floating]) -> float:
    """Compute the Frechet distance between every other image and the rest, two samples of the same images."""
    one, other = _in_their_span(real[::2], real[1::2])
    return frechet_distance(Moments.of(one), Moments.of(other))


def kernel_distance(real: NDArray[np.floating], made: NDArray[np.floating], groups: int = GROUPS) -> Estimate:
    """Estimate KID (Binkowski et al., 2018) of (N, D) and (M, D): unbiased squared MMD, kernel `(x . y / D + 1)^3`.

    >>> x = np.random.default_rng(0).normal(size=(400, 8))
    >>> same, other = kernel_distance(x[:200], x[200:]), kernel_distance(x[:200], x[200:] + 1)
    >>> same.low < 0 < same.high < other.low
    True
    """
    groups = min(groups, len(real), len(made))
    x, y = ([np.asarray(z[g::groups], np.float64) for g in range(groups)] for z in (real, made))
    xx, yy, xy = _kernel_sums(x, x), _kernel_sums(y, y), _kernel_sums(x, y)
    sizes_x, sizes_y = np.array([len(g) for g in x]), np.array([len(g) for g in y])

    def mmd(kept: Array) -> float:
        n, m = kept @ sizes_x, kept @ sizes_y
        within = (kept @ xx @ kept) / (n * (n - 1)) + (kept @ yy @ kept) / (m * (m - 1))
        return float(within - 2 * (kept @ xy @ kept) / (n * m))

    everything = np.ones(groups)
    return jackknife(mmd(everything), [mmd(everything - np.eye(groups)[g]) for g in range(groups)])


def inception_score(probabilities: NDArray[np.floating]) -> Estimate:
    """Estimate `exp(mean KL(p(y|x) || p(y)))` over all images.

    >>> certain = np.repeat(np.eye(4), 25, axis=0)  # four classes, each as often
    >>> round(inception_score(certain).value, 6)
    4.0
    """
    p = np.asarray(probabilities, np.float64)
    groups = min(GROUPS, len(p))
    return jackknife(_score(p), [_score(np.delete(p, np.s_[g::groups], 0)) for g in range(groups)])


def split_inception_score(probabilities: NDArray[np.floating]) -> tuple[float, float]:
    """Compute the score's mean and standard deviation over ten splits, the form in which it is published."""
    scores = [_score(part) for part in np.array_split(np.asarray(probabilities, np.float64), SPLITS)]
    return float(np.mean(scores)), float(np.std(scores))


def jackknife(value: float, left_out: Sequence[float]) -> Estimate:
    """Estimate a value's 95% interval from the values without each of the groups.

    >>> x = np.array([1.0, 2, 3, 4, 5])
    >>> [round(value, 2) for value in jackknife(3.0, [np.delete(x, i).mean() for i in range(5)])]
    [3.0, 1.61, 4.39]
    """
    n = len(left_out)
    error = np.sqrt((n - 1) / n * ((np.array(left_out) - np.mean(left_out)) ** 2).sum())
    return Estimate(value, float(value - NORMAL_95 * error), float(value + NORMAL_95 * error))


def _in_their_span(x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray[np.floating], ...]:
    """Project few images in many dimensions on a basis of their span: a rotation changes no Frechet distance."""
    if len(x) + len(y) >= x.shape[1]:
        return x, y
    basis = np.linalg.qr(np.concatenate([x, y]).astype(np.float64).T)[0]
    return x @ basis, y @ basis


def _kernel_sums(x: list[Array], y: list[Array]) -> Array:
    """Sum the kernel over all pairs of two groups, (groups, groups), a group with itself without its diagonal."""
    sums = np.empty((len(x), len(y)))
    dimensions = x[0].shape[1]

    def kernel(products: Array) -> Array:
        return (products / dimensions + 1) ** 3

    for a, first in enumerate(x):
        for b, second in enumerate(y):
            sums[a, b] = kernel(first @ second.T).sum()
            if first is second:
                sums[a, b] -= kernel((first**2).sum(1)).sum()
    return sums


def _score(p: Array) -> float:
    marginal = p.mean(0)
    logs = np.log(np.clip(p, 1e-300, None)) - np.log(np.clip(marginal, 1e-300, None))
    return float(np.exp((p * logs).sum(1).mean()))
