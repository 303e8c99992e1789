"""Algorithm 2: clusters, neighbours, the threshold and their table."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast.cli import main
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.similarity.algorithm2 import find
from lorbms_fast.similarity.clustering import SMALLEST, clusters, merged, whitened
from lorbms_fast.similarity.features import EXTRACTORS, load_extractor
from lorbms_fast.similarity.features.deepcluster import DeepClusterAlexNet
from lorbms_fast.similarity.quadrants import quadrant
from lorbms_fast.similarity.search import neighbours
from lorbms_fast.similarity.table import NeighbourTable
from lorbms_fast.similarity.tau import draw, half_replacing_tau, replaced_fraction


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape).astype(np.float32)


def test_quadrants_in_reading_order():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    assert [int(quadrant(image, q)[0, 0, 0]) for q in range(4)] == [0, 2, 8, 10]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(11, 80), st.integers(1, 20))
def test_merging_leaves_no_small_cluster_and_splits_none(seed, n, k):
    generator = np.random.Generator(np.random.Philox(seed))
    assigned = generator.integers(k, size=n)
    labels = merged(assigned, normal(k, 3, seed=seed))
    assert np.bincount(labels).min() >= SMALLEST
    assert all(len(set(labels[assigned == cluster])) <= 1 for cluster in range(k))


def test_whitening():
    features = normal(400, 5) @ np.diag([1, 10, 100, 3, 7]).astype(np.float32)
    reduced = whitened(features)
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose((reduced**2).mean(0), 0.2, atol=0.03)


def test_clusters_find_what_is_apart():
    groups = np.concatenate([normal(30, 4, seed=i) * 0.01 + 5 * np.eye(4, dtype=np.float32)[i] for i in range(3)])
    labels = clusters(groups, 3, seed=0)
    assert [len(set(labels[30 * i : 30 * i + 30])) for i in range(3)] == [1, 1, 1]
    assert len(set(labels)) == 3
    assert np.array_equal(labels, clusters(groups, 3, seed=0))


def test_neighbours_are_the_nearest_of_the_same_cluster():
    features, labels = normal(60, 8), np.arange(60) % 3
    rows, distances = neighbours(features, labels)
    exact = np.square(features[:, None].astype(np.float64) - features).sum(2)
    for i in range(60):
        others = [j for j in range(60) if labels[j] == labels[i] and j != i]
        expected = sorted(others, key=lambda j: exact[i, j])[:10]
        assert rows[i].tolist() == expected
        np.testing.assert_allclose(distances[i], exact[i, expected], rtol=1e-4)


@pytest.mark.parametrize("copies", [2, 15])
def test_duplicates_are_neighbours_and_nothing_is_its_own(copies):
    features = np.concatenate([normal(20, 6), np.repeat(normal(1, 6, seed=1), copies, axis=0)])
    rows, distances = neighbours(features, np.zeros(len(features), np.int64))
    assert not (rows == np.arange(len(features))[:, None]).any()
    assert set(rows[-1, : copies - 1]) <= set(range(20, 20 + copies)) - {len(features) - 1}
    np.testing.assert_allclose(distances[-1, : min(10, copies - 1)], 0, atol=1e-4)


def test_too_few_images():
    with pytest.raises(UserError, match="10 images"):
        find(normal(4, 10, 3), None, 0)


def test_tau_replaces_half():
    distances = np.sort(np.square(normal(500, 4, 10)) * 100 + 3)
    tau = half_replacing_tau(distances)
    assert replaced_fraction(draw(distances, seed=5), tau) == pytest.approx(0.5, abs=0.02)
    assert replaced_fraction(draw(distances, seed=5), 0.0) == 0.25
    assert replaced_fraction(draw(distances, seed=5), 1e9) == 0.75


def test_table_survives_being_written_and_is_readable_by_others(store):
    table = NeighbourTable.load(store)
    plain = pq.read_table(store.path / "neighbours.parquet").to_pylist()
    assert plain[4]["q2_ids"] == [store.ids[row] for row in table.rows[4, 1]]
    assert plain[4]["q2_distances"] == table.distances[4, 1].tolist()
    table.save(store)
    again = NeighbourTable.load(store)
    assert np.array_equal(again.rows, table.rows)
    assert (again.tau, again.features) == (50.0, "random")


@pytest.mark.parametrize("content", [b"", b"PAR1 and noise"])
def test_damaged_table(store, content):
    (store.path / "neighbours.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"neighbours\.parquet is damaged"):
        NeighbourTable.load(store)


def test_command_end_to_end(store, capsys):
    (store.path / "neighbours.parquet").unlink()
    with pytest.raises(UserError, match="has no neighbours yet"):
        NeighbourTable.load(store)
    main(["neighbours", str(store.path), "--features", "descriptor"])
    out = capsys.readouterr().out
    assert "of the quadrants are replaced" in out
    assert (store.path / "neighbours.png").stat().st_size > 1000
    table = NeighbourTable.load(ImageStore.open(store.path))
    assert table.features == "descriptor"
    assert (np.diff(table.distances) >= 0).all()


def test_efficientnet_works_as_installed():
    images = np.random.Generator(np.random.Philox(0)).integers(0, 256, (1, 224, 224, 3), dtype=np.uint8)
    features = load_extractor("efficientnet-lite0", None, torch.device("cpu")).extract(images)
    assert features.shape == (1, 4, 1280)
    assert features.std() > 0


def test_deepcluster_reads_its_published_layout(tmp_path):
    torch.manual_seed(0)
    network = DeepClusterAlexNet().eval()
    assert [tuple(p.shape) for p in network.sobel.parameters()] == [(1, 3, 1, 1), (1,), (2, 1, 3, 3), (2,)]
    state = {
        name.replace("features.", "features.module."): value
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    state["top_layer.weight"] = torch.zeros(10, 4096)
    torch.save({"epoch": 1, "arch": "alexnet", "state_dict": state}, tmp_path / "checkpoint.pth.tar")
    extractor = load_extractor("deepcluster", tmp_path / "checkpoint.pth.tar", torch.device("cpu"))
    features = extractor.extract(np.full((1, 224, 224, 3), 90, np.uint8))
    assert features.shape == (1, 4, 4096)
    assert features.min() < 0  # the final ReLU is gone


def test_another_models_weights_are_refused(tmp_path):
    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"lacks .* weights, e\.g\. 'sobel\.0\.weight'"):
        load_extractor("deepcluster", tmp_path / "w.pth", torch.device("cpu"))


def test_pickles_that_would_run_code_are_refused(tmp_path):
    torch.save({"state_dict": print}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="cannot be loaded as weights"):
        load_extractor("deepcluster", tmp_path / "w.pth", torch.device("cpu"))


def test_extractors_say_what_they_need(tmp_path):
    cpu = torch.device("cpu")
    with pytest.raises(UserError, match=", ".join(EXTRACTORS)):
        load_extractor("vgg", None, cpu)
    with pytest.raises(UserError, match=r"need --weights: DeepCluster"):
        load_extractor("deepcluster", None, cpu)
    with pytest.raises(UserError, match="take no --weights"):
        load_extractor("descriptor", tmp_path, cpu)
    with pytest.raises(UserError, match="is missing"):
        load_extractor("timm:resnet18", tmp_path / "absent.pth", cpu)
