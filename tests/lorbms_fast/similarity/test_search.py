"""Cells and the search in them."""

from functools import partial

import numpy as np
import pytest
import torch

from lorbms_fast.similarity import search
from lorbms_fast.similarity.cells import Cells, plain_cells, whitened, whitened_cells
from lorbms_fast.similarity.search import nearest, nearest_of_few, recall

CPU = torch.device("cpu")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape).astype(np.float32)


def squared_distances(features: np.ndarray) -> np.ndarray:
    """All of them, infinite from a row to itself."""
    exact = np.square(features[:, None].astype(np.float64) - features).sum(2)
    np.fill_diagonal(exact, np.inf)
    return exact


def test_whitening():
    features = normal(400, 5) @ np.diag([1, 10, 100, 3, 7]).astype(np.float32)
    reduced = whitened(features)
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose((reduced**2).mean(0), 0.2, atol=0.03)


def test_principal_components_of_a_part_of_many_images(monkeypatch):
    monkeypatch.setattr("lorbms_fast.similarity.cells.PCA_ROWS", 300)
    monkeypatch.setattr("lorbms_fast.similarity.cells.BLOCK", 70)
    features = normal(1000, 5) @ np.diag([1, 10, 100, 3, 7]).astype(np.float32)
    reduced = whitened(features)
    assert reduced.shape == (1000, 5)
    np.testing.assert_allclose((reduced**2).mean(0), 0.2, atol=0.05)


@pytest.mark.parametrize("features", [np.repeat(normal(6, 1280), 5, axis=0), np.ones((30, 40), np.float32)])
def test_whitening_of_repeated_pictures_stays_within_bounds(features):
    """Directions without variance stay small: blown up, they were rows of 1e19."""
    reduced = whitened(features)
    assert np.isfinite(reduced).all()
    assert np.abs(reduced).max() <= 1 + 1e-5


@pytest.mark.parametrize("divide", [plain_cells, whitened_cells])
def test_cells_find_what_is_apart(divide):
    groups = np.concatenate([normal(30, 4, seed=i) * 0.01 + 5 * np.eye(4, dtype=np.float32)[i] for i in range(3)])
    rows = np.setdiff1d(np.arange(90), [4, 50])
    cells = divide(groups, rows, 3, 0, CPU)
    assert sorted(cells.sizes.tolist()) == [29, 29, 30]
    assert all(len(set((members // 30).tolist())) == 1 for members in cells.members)
    assert np.array_equal(np.sort(np.concatenate(cells.members)), rows)
    closest = cells.closest(np.arange(90), 3)
    assert all(row == 4 or row == 50 or row in cells.members[closest[row, 0]] for row in range(90))
    assert (np.sort(closest) == [0, 1, 2]).all()


def test_cells_are_no_more_than_leave_an_image_ten_others():
    assert len(plain_cells(normal(60, 3), np.arange(60), 30, 0, CPU)) == 5
    assert len(plain_cells(normal(11, 3), np.arange(11), 30, 0, CPU)) == 1


@pytest.mark.parametrize("probes", [1, 2])
def test_neighbours_are_the_nearest_of_the_cells_searched(probes):
    features = normal(60, 2)
    cells = Cells.divide(features, normal(3, 2, seed=1), np.arange(60))
    rows, distances = nearest(features, np.arange(60), cells, probes, np.arange(60))
    exact, closest = squared_distances(features), cells.closest(np.arange(60), probes)
    for i in range(60):
        among = np.concatenate([cells.members[cell] for cell in closest[i]])
        if (among != i).sum() < 10:
            among = np.arange(60)
        expected = sorted(among[among != i], key=lambda j: exact[i, j])[:10]
        assert rows[i].tolist() == expected
        np.testing.assert_allclose(distances[i], exact[i, expected], rtol=1e-6)


def test_cells_that_are_too_small_borrow_from_all():
    features = np.concatenate([normal(40, 3), 100 + normal(5, 3)])
    cells = Cells.divide(features, features[[0, -1]], np.arange(45))
    assert cells.sizes.tolist() == [40, 5]
    rows, _ = nearest(features, np.arange(45), cells, 1, np.arange(45))
    assert np.array_equal(rows, np.argsort(squared_distances(features), axis=1)[:, :10])


@pytest.mark.parametrize("far", [0, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_do_not_change_what_is_nearest(far, dtype, monkeypatch):
    """Nor does an origin far away, where differences of squares would lose all their digits."""
    features = normal(90, 8) + np.float32(far)
    queries, everything, pictures = np.arange(0, 90, 4), Cells.undivided(features, np.arange(90)), np.arange(90)
    whole = nearest(features, queries, everything, 1, pictures, dtype=dtype)
    for name, size in (("CHUNK", 11), ("QUERIES", 7), ("TARGETS", 13), ("PRECISE", 3)):
        monkeypatch.setattr(search, name, size)
    parts = nearest(features, queries, everything, 1, pictures, dtype=dtype)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    exact = squared_distances(features)[queries]
    assert np.array_equal(parts[0], np.argsort(exact, axis=1)[:, :10])
    np.testing.assert_allclose(parts[1], np.sort(exact, axis=1)[:, :10], rtol=1e-6)


def test_another_device_finds_the_same(monkeypatch):
    """What a GPU runs, run here."""
    features = normal(90, 8)
    asked = np.arange(90), Cells.undivided(features, np.arange(90)), 1, np.arange(90)
    by_faiss = nearest(features, *asked)
    by_torch = partial(search._closest_by_torch, device=CPU, dtype=torch.float32)
    monkeypatch.setattr(search.faiss, "knn", by_torch)
    assert all(np.array_equal(a, b) for a, b in zip(by_faiss, nearest(features, *asked), strict=True))


def test_recall_is_the_part_that_exhaustive_search_confirms():
    features, pictures = normal(60, 4), np.arange(60)
    everything = Cells.undivided(features, np.arange(60))
    exact = nearest(features, np.arange(60), everything, 1, pictures)
    assert recall(exact[1], exact[1]) == 1
    halves = Cells(features, features[:2], [np.arange(0, 60, 2), np.arange(1, 60, 2)])
    inside = nearest(features, np.arange(60), halves, 1, pictures)
    expected = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact[0].tolist(), inside[0].tolist(), strict=True)])
    assert recall(inside[1], exact[1]) == pytest.approx(expected)
    assert expected < 1


@pytest.mark.parametrize("copies", [2, 15])
def test_copies_are_found_at_distance_0_if_they_count_as_other_pictures(copies):
    features = np.concatenate([normal(20, 6), np.repeat(normal(1, 6, seed=1), copies, axis=0)])
    n = len(features)
    rows, distances = nearest(features, np.arange(n), Cells.undivided(features, np.arange(n)), 1, np.arange(n))
    assert not (rows == np.arange(n)[:, None]).any()
    assert set(rows[-1, : copies - 1]) <= set(range(20, n - 1))
    assert (distances[-1, : copies - 1] == 0).all()


def test_copies_of_one_picture_take_one_place():
    features = np.concatenate([normal(20, 6), np.repeat(normal(1, 6, seed=1), 15, axis=0)])
    pictures = np.minimum(np.arange(35), 20)
    everything = Cells.undivided(features, np.unique(pictures))
    rows, distances = nearest(features, np.arange(35), everything, 1, pictures)
    assert (np.sort(rows) >= 0).all()
    assert (rows <= 20).all()
    assert (rows[20:] < 20).all()
    assert all(len(set(row)) == 10 for row in rows.tolist())
    assert (distances > 0).all()


def test_few_pictures_take_turns():
    """Three scenes of 9, 4 and 1 images: of each other scene one, then their copies in turn, then the image's own."""
    pictures = np.repeat([0, 9, 13], [9, 4, 1])
    features = np.repeat(normal(3, 6), [9, 4, 1], axis=0)
    rows, distances = nearest_of_few(features, pictures)
    scenes = np.sort(pictures[rows], axis=1)
    assert scenes[0].tolist() == [0] * 5 + [9] * 4 + [13]
    assert scenes[10].tolist() == [0] * 9 + [13]
    assert scenes[13].tolist() == [0] * 6 + [9] * 4
    assert (np.diff(distances) >= 0).all()
    assert not (rows == np.arange(14)[:, None]).any()
    assert all(len(set(row)) == 10 for row in rows.tolist())
