"""Distances between sets of features."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from lorbms_fast.evaluation.distances import (
    Moments,
    frechet,
    frechet_distance,
    halves,
    inception_score,
    jackknife,
    kernel_distance,
    split_inception_score,
)

rng = np.random.default_rng(0)


def test_frechet_distance_is_its_formula():
    x, y = rng.normal(size=(50, 6)), rng.normal(1, 2, (70, 6)) @ rng.normal(size=(6, 6))
    C_1, C_2 = np.cov(x.T), np.cov(y.T)
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(C_1 + C_2 - 2 * sqrtm(C_1 @ C_2).real)
    assert frechet_distance(Moments.of(x), Moments.of(y)) == pytest.approx(expected)
    assert frechet(x, y).value == pytest.approx(expected)


def test_frechet_distance_with_fewer_images_than_features():
    x, y = rng.normal(size=(5, 30)), rng.normal(size=(7, 30))
    expected = frechet_distance(Moments.of(x), Moments.of(y))
    root = sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    definition = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)
    assert expected == pytest.approx(definition, rel=1e-3)
    assert frechet(x, y).value == pytest.approx(expected, rel=1e-6)
    assert halves(x) == pytest.approx(frechet_distance(Moments.of(x[::2]), Moments.of(x[1::2])), rel=1e-6)
    assert frechet_distance(Moments.of(x), Moments.of(x)) == pytest.approx(0, abs=1e-4)


def test_frechet_of_known_normal_distributions_lies_in_its_interval():
    """Means 1 apart in 3 dimensions, standard deviations 1 and 2: 3 + 3."""
    inside = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        found = frechet(generator.normal(size=(4000, 3)), generator.normal(1, 2, (4000, 3)))
        inside += found.low < 6 < found.high
        assert found.low < found.value < found.high < found.low + 1
    assert inside >= 17
    assert halves(rng.normal(size=(4000, 3))) < 0.02


def test_kernel_distance_is_its_definition():
    x, y = rng.normal(size=(23, 4)), rng.normal(0.5, 1, (21, 4))

    def k(a, b):
        return (a @ b / 4 + 1) ** 3

    xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    found = kernel_distance(x, y, groups=5)
    assert found.value == pytest.approx(xx + yy - 2 * xy)
    without_first = kernel_distance(np.delete(x, np.s_[::5], 0), np.delete(y, np.s_[::5], 0), groups=3).value
    others = [
        kernel_distance(np.delete(x, np.s_[g::5], 0), np.delete(y, np.s_[g::5], 0), groups=3).value for g in range(5)
    ]
    assert others[0] == without_first
    assert found == pytest.approx(jackknife(found.value, others))


def test_kernel_distance_is_unbiased():
    values = [
        kernel_distance(*np.random.default_rng(seed).normal(size=(2, 40, 3)), groups=4).value for seed in range(200)
    ]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(200)


def test_inception_score():
    certain = np.eye(10)[np.arange(200) % 10]
    assert inception_score(certain).value == pytest.approx(10)
    assert inception_score(np.full((50, 10), 0.1)).value == pytest.approx(1)
    p = rng.dirichlet(np.ones(5), 60)
    by_hand = np.exp(np.mean([sum(q * np.log(q / m) for q, m in zip(row, p.mean(0), strict=True)) for row in p]))
    assert inception_score(p).value == pytest.approx(by_hand)
    mean, sd = split_inception_score(certain)
    assert (mean, sd) == (pytest.approx(10), pytest.approx(0))


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = rng.normal(size=200)
    found = jackknife(x.mean(), [np.delete(x, i).mean() for i in range(200)])
    assert found.high - found.value == pytest.approx(1.959964 * x.std(ddof=1) / np.sqrt(200))
