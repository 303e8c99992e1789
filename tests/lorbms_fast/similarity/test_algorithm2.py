"""Algorithm 2: features, neighbours, the threshold and their table."""

import hashlib
import io
import json
import os
import shutil
import threading
from contextlib import nullcontext
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lorbms_fast.cli import main
from lorbms_fast.commands import neighbours
from lorbms_fast.dataloader import neighbour_table
from lorbms_fast.dataloader.neighbour_table import FILE, NeighbourTable
from lorbms_fast.dataloader.parquet import read_rows
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import Listing, of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.models.variants import with_variant
from lorbms_fast.run import Run
from lorbms_fast.similarity import algorithm2
from lorbms_fast.similarity.algorithm2 import Settings, find, find_for_quadrant, quadrant_features
from lorbms_fast.similarity.features import EXTRACTORS, load_extractor
from lorbms_fast.similarity.features.deepcluster import DeepClusterAlexNet
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.partial_search import PartialSearch
from lorbms_fast.similarity.quadrants import quadrant
from lorbms_fast.similarity.tau import draw, half_replacing_tau, replaced_fraction
from lorbms_fast.weights import read_checkpoint
from tests.conftest import TINY


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape).astype(np.float32)


def test_quadrants_in_reading_order():
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    assert [int(quadrant(image, q)[0, 0, 0]) for q in range(4)] == [0, 2, 8, 10]


@pytest.fixture
def work(tmp_path):
    (tmp_path / "work").mkdir()
    return PartialSearch(tmp_path / "work")


def test_finished_quadrants_are_not_searched_again(work, monkeypatch):
    features, pictures = normal(4, 60, 3), np.arange(60)
    whole = find(features, pictures, Settings(k=2), work)
    (work.folder / "quadrant-3.npz").unlink()
    searched = []
    monkeypatch.setattr(
        algorithm2,
        "find_for_quadrant",
        lambda features, pictures, settings, *more: (
            searched.append(settings) or find_for_quadrant(features, pictures, settings, *more)
        ),
    )
    again = find(features, pictures, Settings(k=2), work)
    assert len(searched) == 1
    for before, after in zip(whole, again, strict=True):
        assert np.array_equal(after.rows, before.rows)
        assert np.array_equal(after.distances, before.distances)
        assert (after.recall, after.probes) == (before.recall, before.probes)
    find(features, pictures, Settings(k=2, seed=1), work)
    assert len(searched) == 5  # another seed is another search
    find(features, np.arange(60) // 2 * 2, Settings(k=2, seed=1), work)
    assert len(searched) == 9  # so are other copies


def like_photographs(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Features as networks give them: many numbers that depend on few, rectified, with noise; in loose groups."""
    generator = np.random.Generator(np.random.Philox(seed))
    causes = normal(20, 24)[generator.integers(20, size=n)] + normal(n, 24, seed=seed + 1)
    return np.maximum(causes @ normal(24, d), 0) + normal(n, d, seed=seed + 2) * np.float32(0.3)


def part_found(features: np.ndarray, rows: np.ndarray, sample: np.ndarray) -> float:
    """Which part of the ten nearest of all, by rows, is among those found."""
    x = features.astype(np.float64)
    squared = np.square(x[sample]).sum(1)[:, None] + np.square(x).sum(1) - 2 * x[sample] @ x.T
    squared[np.arange(len(sample)), sample] = np.inf
    best = np.argpartition(squared, 9, axis=1)[:, :10]
    return float(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(best, rows[sample], strict=True)]))


@pytest.mark.parametrize(
    ("n", "d"),
    [*product([11, 48, 200, 632], [1280, 4096]), (5000, 1280)],  # more rows than are compared at a time
)
def test_the_nearest_are_found_in_small_and_middle_stores(n, d):
    features = like_photographs(n, d)
    found = find_for_quadrant(features, np.arange(n), Settings())
    assert part_found(features, found.rows, np.arange(0, n, max(1, n // 100))) > 0.999
    assert found.recall == 1


def test_the_nearest_are_found_in_cells(monkeypatch):
    monkeypatch.setattr(algorithm2, "EXACT", 1000)
    monkeypatch.setattr(algorithm2, "IMAGES_PER_CELL", 200)
    features = like_photographs(5000, 1280)
    found = find_for_quadrant(features, np.arange(5000), Settings())
    assert len(found.sizes) == 25
    assert 1 <= found.probes <= 12
    part = part_found(features, found.rows, np.arange(0, 5000, 25))
    assert part >= 0.9
    assert found.recall == pytest.approx(part, abs=0.05)


def test_where_cells_say_nothing_all_are_searched(monkeypatch):
    monkeypatch.setattr(algorithm2, "EXACT", 100)
    monkeypatch.setattr(algorithm2, "IMAGES_PER_CELL", 100)
    features = normal(1500, 300)
    found = find_for_quadrant(features, np.arange(1500), Settings())
    assert found.sizes.tolist() == [1500]
    assert part_found(features, found.rows, np.arange(0, 1500, 15)) > 0.999


@pytest.mark.slow
def test_the_nearest_are_found_among_many():
    features = like_photographs(60_000, 256)
    found = find_for_quadrant(features, np.arange(60_000), Settings())
    assert len(found.sizes) == 30
    assert part_found(features, found.rows, np.arange(0, 60_000, 300)) >= 0.9


def test_the_authors_way_stays_by_name_and_its_recall_is_told():
    features = like_photographs(632, 1280)
    found = find_for_quadrant(features, np.arange(632), Settings("whitened-256"))
    assert len(found.sizes) == 7
    assert found.recall < 0.9
    assert found.recall == pytest.approx(part_found(features, found.rows, np.arange(632)), abs=0.05)


@pytest.mark.parametrize("method", ["nearest", "whitened-256"])
@pytest.mark.parametrize("k", [None, 7])
@pytest.mark.parametrize(("scenes", "frames"), [(6, 5), (1, 30), (20, 40)])
def test_repeated_pictures(method, k, scenes, frames):
    """No list holds the image's own copies where others exist, nor two copies of one picture where ten are there."""
    n = scenes * frames
    features = np.repeat(like_photographs(scenes, 1280), frames, axis=0)
    for pictures in (np.arange(n) // frames * frames, np.arange(n)):  # also if nobody noticed that they are copies
        found = find_for_quadrant(features, pictures, Settings(method, k))
        assert np.isfinite(found.distances).all()
        assert not (found.rows == np.arange(n)[:, None]).any()
        assert all(len(set(row)) == 10 for row in found.rows.tolist())
        if pictures[-1] != n - 1:
            scene_of = found.rows // frames
            assert (found.distances > 0).all() or scenes == 1
            assert not (scene_of == np.arange(n)[:, None] // frames).any() or scenes == 1
            assert all(len(set(row)) == min(10, max(1, scenes - 1)) for row in scene_of.tolist())


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
    whole = np.array(quadrant_features(store, counted([0]), PartialSearch(work.folder.parent / "other")))
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
    work.features_file.unlink()  # a kill came behind its move into the store
    assert np.array_equal(quadrant_features(store, counted([0]), work), whole)


def test_other_features_do_not_mix(work):
    work.begin({"store": "a", "features": "a", "weights": ""})
    work.save("quadrant-1", {}, rows=np.arange(3))
    work.begin({"store": "a", "features": "a", "weights": ""})
    assert work.load("quadrant-1", {}) is not None
    work.begin({"store": "a", "features": "b", "weights": ""})  # where there are none yet
    assert work.load("quadrant-1", {}) is None, "it was of the others"
    work.features_file.touch()
    work.note_done(1)
    with pytest.raises(UserError, match="holds features of another store, weights: remove it"):
        work.begin({"store": "c", "features": "b", "weights": "d"})


def test_a_kill_behind_the_features_move_into_the_store_and_another_leave_nothing_that_counts_as_done(work):
    work.begin({"store": "a", "features": "a", "weights": ""})
    work.features_file.touch()
    work.note_done(24)
    work.features_file.unlink()
    work.begin({"store": "a", "features": "b", "weights": ""})
    work.features(24, 3)  # zeros
    assert work.done == 0


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"", lambda data: b"\xff" * len(data)])
@pytest.mark.parametrize("name", ["features.json", "done", "features.npy", "quadrant-1.npz"])
def test_damaged_parts_are_told_with_what_to_remove(name, damage, store, work):
    settings = Settings(seed=3)
    pictures = np.arange(len(store))

    def searched() -> np.ndarray:
        work.begin({"store": "a", "features": "b", "weights": ""})
        found = find(quadrant_features(store, counted([0]), work), pictures, settings, work)
        return np.stack([quadrant.rows for quadrant in found])

    before = searched()
    path = work.folder / name
    path.write_bytes(damage(b"1" if name == "done" else path.read_bytes()))
    with pytest.raises(UserError, match=r"is damaged \(.*\): remove \S+ and run the same command again") as told:
        searched()
    remedy = Path(str(told.value).split("remove ")[1].split()[0])
    assert remedy == (work.folder if name == "features.json" else path)
    shutil.rmtree(remedy) if remedy.is_dir() else remedy.unlink()
    work.folder.mkdir(exist_ok=True)
    assert np.array_equal(searched(), before)


def test_no_room_for_features(work, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**9))
    with pytest.raises(
        UserError, match=r"needs 22,207\.9 MB for features and 1,000\.0 MB are free on its disk: make room"
    ):
        work.features(338_865, 4096)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e20])
def test_features_that_are_no_numbers_are_refused(value, store, work):
    def extract(images: np.ndarray) -> np.ndarray:
        features = np.ones((len(images), 4, 3), np.float32)
        features[5, 2, 1] = value
        return features

    with pytest.raises(
        UserError, match=r"features of .*05\.\w+ hold .*, whose distances cannot be told: check the weights"
    ):
        quadrant_features(store, Extractor(32, extract), work)


def test_too_few_images_are_refused_before_anything_is_written(photographs, tmp_path, capsys):
    few = of_folder(photographs).photographs[:10]
    prepare_store(tmp_path / "s", photographs, Listing(few), Recipe())
    with pytest.raises(SystemExit):
        main(["neighbours", str(tmp_path / "s"), "--features", "descriptor"])
    assert "s has 10 images: 10 neighbours for each need 11 or more; prepare more" in capsys.readouterr().err
    assert not (tmp_path / "s/neighbours.partial").exists()


def test_a_folder_whose_name_is_not_utf_8_can_be_a_store_and_no_run(photographs, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    few = of_folder(photographs).photographs[:12]
    prepare_store(tmp_path / name, photographs, Listing(few), Recipe())
    store = ImageStore.open(tmp_path / name)
    NeighbourTable(np.zeros((12, 4, 10), np.int64), np.zeros((12, 4, 10), np.float32), 0.0, "f", {}).save(store)
    table = NeighbourTable.load(store)
    assert len(table.rows) == 12
    laid_out = replace(table, rows=np.asfortranarray(table.rows))
    assert laid_out.digest == table.digest == hashlib.sha256(bytes(12 * 4 * 10 * (8 + 4))).hexdigest()
    with pytest.raises(UserError, match="is not UTF-8, as safetensors wants names: choose another --out"):
        Run.create(tmp_path / f"R{name}", TINY, store.path)


def test_tau_replaces_half_of_few_images_too():
    """Of all ways to draw, as many as a million draws tell."""
    distances = np.sort(np.random.default_rng(0).exponential(size=(12, 4, 10)).astype(np.float32), axis=2)
    tau = half_replacing_tau(distances)
    ranks = np.random.default_rng(1).integers(10, size=(12, 80_000, 4))
    drawn = distances[np.arange(12)[:, None, None], np.arange(4), ranks].reshape(-1, 4)
    assert replaced_fraction(drawn, tau) == pytest.approx(0.5, abs=0.004)
    assert replaced_fraction(draw(distances, seed=1), tau) == pytest.approx(0.5, abs=0.004)


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


def test_a_table_of_several_groups_of_rows_is_read_by_one_thread(store, monkeypatch):
    table = NeighbourTable.load(store)
    monkeypatch.setattr(neighbour_table, "ROWS", 10)
    path = table.save(store)
    assert pq.ParquetFile(path).num_row_groups == 3
    again = NeighbourTable.load(store)
    assert np.array_equal(again.rows, table.rows)
    assert np.array_equal(again.distances, table.distances)

    class Opened(io.FileIO):
        threads: ClassVar[set[int]] = set()

        def read(self, *size: int) -> bytes:
            self.threads.add(threading.get_ident())
            return super().read(*size)

    monkeypatch.setattr(Path, "open", lambda path, mode: Opened(path, mode))
    read_rows(path, len(store), ("id", "q1_ids.list.element"))
    assert Opened.threads == {threading.get_ident()}  # another one may outlive Python, and then ends the process


@pytest.mark.parametrize("content", [b"", b"PAR1 and noise"])
def test_damaged_table(store, content):
    (store.path / "neighbours.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"neighbours\.parquet is damaged"):
        NeighbourTable.load(store)


def test_neighbours_of_other_pictures_of_the_same_names_are_refused(store, photographs, tmp_path):
    folder = shutil.copytree(photographs, tmp_path / "photographs")
    shutil.copy(folder / "photo03.jpg", folder / "photo04.jpg")
    prepare_store(tmp_path / "other", folder, of_folder(folder), Recipe())
    shutil.copy(store.path / FILE, tmp_path / "other")
    with pytest.raises(UserError, match=r"neighbours\.parquet speaks of other images than the store holds"):
        NeighbourTable.load(ImageStore.open(tmp_path / "other"))


def test_neighbours_of_before_a_store_was_noted_are_read(store):
    table = pq.read_table(store.path / FILE)
    facts = json.loads(table.schema.metadata[b"lorbms_fast"])
    assert facts.pop("store") == store.digest
    pq.write_table(table.replace_schema_metadata({"lorbms_fast": json.dumps(facts)}), store.path / FILE)
    assert NeighbourTable.load(store).tau == 50.0


def test_a_sheet_that_cannot_be_drawn_loses_no_search(store, monkeypatch):
    command = ["neighbours", str(store.path), "--features", "descriptor"]

    def full(*_: object) -> None:
        raise UserError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(neighbours, "save_sheet", full)
        with pytest.raises(SystemExit, match="2"):
            main(command)
    monkeypatch.setattr(algorithm2, "find_for_quadrant", full)  # nothing is searched again
    main(command)
    assert NeighbourTable.load(store).features == "descriptor"
    assert (store.path / "features.npy").is_file()


def test_command_end_to_end(store, capsys):
    (store.path / "neighbours.parquet").unlink()
    with pytest.raises(UserError, match="has no neighbours yet"):
        NeighbourTable.load(store)
    main(["neighbours", str(store.path), "--features", "descriptor"])
    out = capsys.readouterr().out
    assert "of the quadrants are replaced" in out
    assert "of the ten nearest of all, found (recall, on a sample): q1: 100.0%" in out
    assert "clusters searched for each image: q1: all 24 images" in out
    assert "Faiss: faiss-cpu" in out
    assert not (store.path / "neighbours.partial").exists()
    assert (store.path / "neighbours.png").stat().st_size > 1000
    table = NeighbourTable.load(ImageStore.open(store.path))
    assert table.features == "descriptor"
    assert (np.diff(table.distances) >= 0).all()
    assert table.facts["recall"] == [1.0] * 4


def test_command_says_one_thing_of_equal_pictures(tmp_path, capsys):
    for i in range(12):
        Image.new("RGB", (64, 64), "teal").save(tmp_path / f"{i}.png")
    prepare_store(tmp_path / "s", tmp_path, of_folder(tmp_path), Recipe())
    main(["neighbours", str(tmp_path / "s"), "--features", "descriptor"])
    out, error = capsys.readouterr()
    assert "q1: all 1 image," in out
    assert error.count("warning: ") == 1
    assert "11 of 12 images are copies of others" in error
    assert "other pictures for each image: 0. Copies fill the rest of the lists" in error


def test_command_warns_of_copies_and_of_a_low_recall(photographs, tmp_path, capsys):
    folder = tmp_path / "repeated"
    folder.mkdir()
    for i, one in enumerate(sorted(photographs.iterdir())[:4]):
        square = Image.open(one).convert("RGB").resize((96, 96))
        for copy in range(4):
            square.save(folder / f"{i}-{copy}.png")
    prepare_store(tmp_path / "s", folder, of_folder(folder), Recipe())
    main(["neighbours", str(tmp_path / "s"), "--features", "descriptor"])
    error = capsys.readouterr().err
    assert error.count("warning: ") == 1
    assert "warning: 12 of 16 images are copies of others" in error
    assert "10 neighbours are wanted, other pictures for each image: 3. Copies fill the rest of the lists" in error
    table = NeighbourTable.load(ImageStore.open(tmp_path / "s"))
    of_others = table.rows // 4 != (np.arange(16) // 4)[:, None, None]
    assert of_others.all()
    prepare_store(tmp_path / "t", photographs, of_folder(photographs), Recipe())
    main(["neighbours", str(tmp_path / "t"), "--features", "descriptor", "--method", "whitened-256", "--clusters", "2"])
    told = capsys.readouterr().err
    assert "warning: less than 90% of the nearest images were found" in told
    assert "too many" not in told
    main(["neighbours", str(tmp_path / "t"), "--features", "descriptor", "--method", "whitened-256", "--clusters", "5"])
    assert "--clusters 5 is too many for 24 different pictures" in capsys.readouterr().err


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


def test_weights_that_are_not_there_are_missing(tmp_path):
    with pytest.raises(UserError, match=r"--weights .*w\.pth is missing: check the path"):
        load_extractor("deepcluster", tmp_path / "w.pth", torch.device("cpu"))
    with pytest.raises(UserError, match=r"w\.pth is missing: check the path"):
        read_checkpoint(tmp_path / "w.pth")


def test_a_text_in_the_place_of_weights_is_told_with_the_kind_of_error(tmp_path):
    (tmp_path / "w.pth").write_text("hello")
    with pytest.raises(UserError, match=r"cannot be loaded as weights \(\w+Error: 101\): check that it is the right"):
        load_extractor("deepcluster", tmp_path / "w.pth", torch.device("cpu"))


def test_a_run_of_other_codes_gives_no_features(tmp_path):
    for name in ("size-96", "hu"):
        run = Run.create(tmp_path / name, with_variant(TINY, name), tmp_path / "store")
        with pytest.raises(UserError, match="has other codes than a chunk for each quadrant"):
            load_extractor("encoder", run.folder, torch.device("cpu"))


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


def test_features_that_a_cluster_leaves_are_not_taken_for_those_of_the_search_before(store, monkeypatch):
    work = PartialSearch(store.path / "neighbours.partial")
    work.folder.mkdir()
    work.begin({"store": store.digest, "features": "descriptor", "weights": ""})
    work.features(len(store), 8)
    work.note_done(len(store))

    def killed(*arguments: object) -> None:
        np.save(work.features_file, np.ones((4, len(store), 8), np.float32))
        raise UserError("killed: run it again")

    def nobody_answers(cluster):
        raise UserError("no cluster answers at ray")

    modules = {"lorbms_fast.cluster.neighbours": SimpleNamespace(search_on_cluster=killed)}
    monkeypatch.setattr(neighbours, "import_module", modules.__getitem__)
    for connected, done in ((nobody_answers, len(store)), (lambda cluster: nullcontext(), 0)):
        modules["lorbms_fast.cluster.tasks"] = SimpleNamespace(connected=connected)
        with pytest.raises(SystemExit):
            main(["neighbours", str(store.path), "--features", "encoder", "--cluster", "ray"])
        assert work.done == done
