"""The test that fast and reference must pass over long runs: what it calls different, and how seldom without reason."""

import numpy as np
import pytest

from bench import likeness as module
from bench.likeness import BLOCKS, LOSSES, differences, likeness, photographs, train

PAIRS = 6


def noise(seed: int) -> np.ndarray:
    """Differences of pairs that are alike, losses of a pair hanging together."""
    draw = np.random.Generator(np.random.Philox(seed))
    common = draw.standard_normal((PAIRS, 1, 1))
    return common + draw.standard_normal((PAIRS, len(LOSSES), BLOCKS))


def test_alike_is_called_different_in_at_most_one_of_twenty():
    smallest = np.array([likeness(noise(seed)).min() for seed in range(400)])
    assert (smallest <= 0.05).mean() < 0.09
    assert smallest.min() >= 2 / 2**PAIRS


@pytest.mark.parametrize(("spreads", "least"), [(4.0, 0.85), (10.0, 0.95)])
def test_a_shift_of_some_times_the_spread_of_pairs_is_found_in_its_loss(spreads, least):
    found = 0
    for seed in range(100):
        D = noise(seed)
        D[:, 2] += spreads * np.sqrt(2)  # the noise has a variance of 2
        found += likeness(D)[2].min() <= 0.05
    assert found / 100 >= least


def test_averages_are_over_halves():
    losses = np.arange(8.0).reshape(1, 8, 1)
    assert np.array_equal(differences(losses, np.zeros_like(losses)), [[[1.5, 5.5]]])


def test_a_run_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT", tmp_path)
    images = photographs()[:20]
    whole = train("fast", 1, images, 3)
    train("fast", 2, images, 1)
    again = train("fast", 1, images, 3)
    assert np.array_equal(whole, again)
    (tmp_path / "fast-1.pt").unlink()
    train("fast", 1, images, 1)
    assert np.array_equal(train("fast", 1, images, 3), whole)


@pytest.mark.slow
def test_short_runs_of_both_forms_are_alike(tmp_path, monkeypatch):
    """Six pairs of 200 iterations; `python -m bench.likeness` makes 2,000 of them."""
    monkeypatch.setattr(module, "KEPT", tmp_path)
    images = photographs()
    ours, reference = (np.stack([train(way, s, images, 200) for s in range(PAIRS)]) for way in ("fast", "reference"))
    assert likeness(differences(ours, reference)).min() > 0.05
