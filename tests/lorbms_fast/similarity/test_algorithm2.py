"""Algorithm 2: clusters, neighbours, the threshold and their table."""

from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast.cli import main
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import Listing, of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.similarity import algorithm2, search
from lorbms_fast.similarity.algorithm2 import find, quadrant_features
from lorbms_fast.similarity.clustering import SMALLEST, clusters, merged, whitened
from lorbms_fast.similarity.features import EXTRACTORS, load_extractor
from lorbms_fast.similarity.features.deepcluster import DeepClusterAlexNet
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.quadrants import quadrant
from lorbms_fast.similarity.search import nearest, neighbours, recall
from lorbms_fast.similarity.table import NeighbourTable
from lorbms_fast.similarity.tau import draw, half_replacing_tau, replaced_fraction
from lorbms_fast.similarity.workplace import Workplace


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
        np.testing.assert_allclose(distances[i], exact[i, expected], rtol=1e-6)


@pytest.mark.parametrize("far", [0, 1000])
def test_blocks_do_not_change_what_is_nearest(far, monkeypatch):
    """Nor does an origin far away, where the expanded form of the distance would lose all its digits."""
    features = normal(90, 8) + np.float32(far)
    queries, among = np.arange(0, 90, 4), np.arange(90)
    whole = nearest(features, queries, among)
    for name, size in (("QUERIES", 7), ("TARGETS", 13), ("PRECISE", 3)):
        monkeypatch.setattr(search, name, size)
    parts = nearest(features, queries, among)
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    exact = np.square(features[queries, None].astype(np.float64) - features).sum(2)
    exact[np.arange(len(queries)), queries] = np.inf
    assert np.array_equal(parts[0], np.argsort(exact, axis=1)[:, :10])
    np.testing.assert_allclose(parts[1], np.sort(exact, axis=1)[:, :10], rtol=1e-6)


def test_recall_is_the_part_that_exhaustive_search_confirms():
    features = normal(60, 4)
    sample = np.arange(0, 60, 3)
    _, everywhere = neighbours(features, np.zeros(60, np.int64))
    assert recall(features, everywhere, sample) == 1
    labels = np.arange(60) % 2
    rows, inside = neighbours(features, labels)
    exact = np.square(features[:, None] - features).sum(2) + np.diag(np.full(60, np.inf))
    best = np.argsort(exact, axis=1)[:, :10]
    expected = np.mean([len(set(best[i]) & set(rows[i])) / 10 for i in sample])
    assert recall(features, inside, sample) == pytest.approx(expected)
    assert expected < 1


@pytest.mark.parametrize("copies", [2, 15])
def test_duplicates_are_neighbours_and_nothing_is_its_own(copies):
    features = np.concatenate([normal(20, 6), np.repeat(normal(1, 6, seed=1), copies, axis=0)])
    rows, distances = neighbours(features, np.zeros(len(features), np.int64))
    assert not (rows == np.arange(len(features))[:, None]).any()
    assert set(rows[-1, : copies - 1]) <= set(range(20, 20 + copies)) - {len(features) - 1}
    assert (distances[-1, : copies - 1] == 0).all()


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    return Workplace(tmp_path / "work")


def test_principal_components_of_a_part_of_many_images(monkeypatch):
    monkeypatch.setattr("lorbms_fast.similarity.clustering.PCA_ROWS", 300)
    monkeypatch.setattr("lorbms_fast.similarity.clustering.BLOCK", 70)
    features = normal(1000, 5) @ np.diag([1, 10, 100, 3, 7]).astype(np.float32)
    reduced = whitened(features)
    assert reduced.shape == (1000, 5)
    np.testing.assert_allclose((reduced**2).mean(0), 0.2, atol=0.05)


def test_finished_quadrants_are_not_searched_again(work, monkeypatch):
    features = normal(4, 60, 3)
    whole = find(features, 2, 0, work)
    (work.folder / "quadrant-3.npz").unlink()
    searched = []
    monkeypatch.setattr(
        algorithm2, "clusters", lambda features, k, seed: searched.append(k) or clusters(features, k, seed)
    )
    again = find(features, 2, 0, work)
    assert searched == [2]
    assert np.array_equal(again.rows, whole.rows)
    assert np.array_equal(again.distances, whole.distances)
    assert again.recall == whole.recall
    find(features, 2, 1, work)
    assert len(searched) == 5  # another seed is another search


def counted(calls: list) -> Extractor:
    """Mean colours of the quadrants, noting how many images it has seen, and failing when told to."""

    def extract(images: np.ndarray) -> np.ndarray:
        calls.append(images)
        if len(calls) == calls[0]:
            raise KeyboardInterrupt
        halves = images.reshape(len(images), 2, 16, 2, 16, 3).mean((2, 4), dtype=np.float32)
        return halves.reshape(len(images), 4, 3)

    return Extractor(32, extract)


def test_features_go_on_where_they_were(store, work, monkeypatch):
    monkeypatch.setattr(algorithm2, "BATCH", 5)
    monkeypatch.setattr(algorithm2, "NOTED", 1)
    (work.folder.parent / "other").mkdir()
    whole = np.array(quadrant_features(store, counted([0]), Workplace(work.folder.parent / "other")))
    assert whole.shape == (4, 24, 3)
    for i in (0, 23):
        corner = store.square(i, 32)[16:, :16].mean((0, 1))
        np.testing.assert_allclose(whole[2, i], corner, rtol=1e-5)
    with pytest.raises(KeyboardInterrupt):
        quadrant_features(store, counted([4]), work)  # the third batch
    assert work.done == 10
    calls = [0]
    assert np.array_equal(quadrant_features(store, counted(calls), work), whole)
    assert [len(images) for images in calls[1:]] == [5, 5, 5]  # the last one is filled up
    assert np.array_equal(quadrant_features(store, counted([0]), work), whole)


def test_other_features_do_not_mix(work):
    work.begin({"store": "a", "features": "b", "weights": ""})
    work.begin({"store": "a", "features": "b", "weights": ""})
    with pytest.raises(UserError, match="holds features of another store, weights: remove it"):
        work.begin({"store": "c", "features": "b", "weights": "d"})


def test_no_room_for_features(work, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**9))
    with pytest.raises(UserError, match=r"would need 22\.2 GB for features and 1\.0 GB are free: make room"):
        work.features(338_865, 4096)


def test_too_few_images(photographs, tmp_path, work):
    few = of_folder(photographs).photographs[:10]
    prepare_store(tmp_path / "s", photographs, Listing(few), Recipe())
    with pytest.raises(UserError, match="10 images"):
        quadrant_features(ImageStore.open(tmp_path / "s"), counted([0]), work)


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
    assert "found within the cluster (a sample): q1: 100.0%" in out
    assert not (store.path / "neighbours.partial").exists()
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
