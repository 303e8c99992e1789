"""Features that stay beside a store."""

import numpy as np
import pytest

from lorbms_fast.similarity import stored_features as module
from lorbms_fast.similarity.stored_features import keep_features, load_features, nearest_to


@pytest.fixture
def features() -> np.ndarray:
    return np.random.Generator(np.random.Philox(2)).normal(size=(4, 24, 7)).astype(np.float32)


def test_the_nearest_of_all(features):
    picture = features[:, 3] + np.float32(0.1)
    rows, distances = nearest_to(picture, features)
    assert rows.shape == distances.shape == (4, 10)
    for q in range(4):
        to_all = [sum((float(a) - float(b)) ** 2 for a, b in zip(picture[q], row, strict=True)) for row in features[q]]
        assert rows[q].tolist() == np.argsort(to_all)[:10].tolist()
        np.testing.assert_allclose(distances[q], np.sort(to_all)[:10], rtol=1e-4)
    assert (rows[:, 0] == 3).all()


def test_small_ones_are_kept_and_large_ones_go(store, features, tmp_path, monkeypatch):
    assert load_features(store) is None
    np.save(tmp_path / "f.npy", features)
    assert keep_features(store, tmp_path / "f.npy") == store.path / "features.npy"
    np.testing.assert_array_equal(load_features(store), features)
    np.save(tmp_path / "g.npy", features)
    monkeypatch.setattr(module, "LARGEST", 100)
    assert keep_features(store, tmp_path / "g.npy") is None
    assert load_features(store) is None


@pytest.mark.parametrize("content", [b"", b"no features", "of others"])
def test_damaged_ones_are_none(content, store, features):
    path = store.path / "features.npy"
    np.save(path, features[:, :5]) if content == "of others" else path.write_bytes(content)
    assert load_features(store) is None
