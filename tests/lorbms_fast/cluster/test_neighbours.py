"""Neighbours on a cluster: those of a single machine with the same float16 features, and at least their recall."""

import errno
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lorbms_fast.cli import main
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.places import Place, copied
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_tar
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.similarity.algorithm2 import Quadrant, Settings, find_for_quadrant
from lorbms_fast.similarity.copies import originals


@pytest.fixture(scope="module")
def prepared(shards, tmp_path_factory) -> Path:
    """239 images, 20 of them twice."""
    out = tmp_path_factory.mktemp("prepared") / "store"
    listing = of_tar(shards)
    again = [type(one)(f"again-{one.id}", one.place) for one in listing.photographs[:20]]
    listing = type(listing)([*listing.photographs, *again])
    prepare_store(out, shards, listing, Recipe())
    return out


def small_parts(monkeypatch) -> None:
    """Several files of features, and several tasks of a search."""
    from lorbms_fast.cluster import neighbours

    monkeypatch.setattr(neighbours, "rows_of_a_file", lambda images: 48)
    monkeypatch.setattr(neighbours, "SEARCHED", 60)
    monkeypatch.setattr(neighbours, "IN_A_TASK", 100)


def in_cells(monkeypatch) -> None:
    """Machines that have not the memory to search a quadrant whole."""
    from lorbms_fast.cluster import neighbours

    monkeypatch.setattr(neighbours, "memory_of_search", lambda images, dimension: 1 << 60)


@pytest.mark.slow
def test_what_a_machine_holds_is_searched_as_without_a_cluster(nodes, prepared, monkeypatch, capsys):
    from lorbms_fast.cluster.neighbours import threads

    small_parts(monkeypatch)
    command = ["neighbours", str(prepared), "--features", "descriptor", "--clusters", "6"]
    with threads(1):  # as each node of the cluster has
        main(command)
    names = ("neighbours.parquet", "features.npy", "neighbours.png")
    alone = {name: (prepared / name).read_bytes() for name in names}
    capsys.readouterr()
    main([*command, "--cluster", "ray"])
    assert "search: a quadrant by one machine of 1 processor, as without --cluster (" in capsys.readouterr().out
    assert {name: (prepared / name).read_bytes() for name in names} == alone
    assert not (prepared / "neighbours.partial").exists()


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [None, 6])
def test_neighbours_in_cells_are_those_of_one_machine(clusters, nodes, prepared, monkeypatch, capsys):
    small_parts(monkeypatch)
    in_cells(monkeypatch)
    options = [] if clusters is None else ["--clusters", str(clusters)]
    main(["neighbours", str(prepared), "--features", "descriptor", "--cluster", "ray", *options])
    said = capsys.readouterr().out
    assert "recall" in said
    assert "search: in cells, by all machines, with float16 features (by one it takes 1152921504.6 GB of memory" in said
    store = ImageStore.open(prepared)
    table = NeighbourTable.load(store)
    assert not (prepared / "neighbours.partial").exists()
    features = np.load(prepared / "features.npy")
    assert np.array_equal(features, features.astype(np.float16))
    pictures = originals(store.images)
    assert len(np.unique(pictures)) == len(pictures) - 20
    for q in range(4):
        alone = find_for_quadrant(features[q], pictures, Settings(k=clusters))
        assert np.array_equal(table.distances[:, q], alone.distances)
        assert (table.rows[:, q] == alone.rows).mean() > 0.999  # of equally near ones others may be kept
        assert table.facts["searched"][q] == alone.probes
        assert table.facts["clusters"][q] == len(alone.sizes)
        assert table.facts["recall"][q] == pytest.approx(alone.recall, abs=1e-3)
    assert table.facts["precision"] == "float16"


@pytest.mark.slow
def test_copies_are_found_in_cells_where_there_are_too_many_images(nodes, prepared, monkeypatch):
    from lorbms_fast.cluster import neighbours

    small_parts(monkeypatch)
    in_cells(monkeypatch)
    monkeypatch.setattr(neighbours, "TOGETHER", 100)
    main(["neighbours", str(prepared), "--features", "descriptor", "--cluster", "ray", "--clusters", "6"])
    store = ImageStore.open(prepared)
    assert NeighbourTable.load(store).facts["pictures"] == len(np.unique(originals(store.images)))


@pytest.mark.slow
def test_a_store_elsewhere(bucket, nodes, prepared, monkeypatch, capsys):
    small_parts(monkeypatch)
    in_cells(monkeypatch)
    url = f"{bucket}/neighbours/store"
    for name in ("store.json", "index.parquet", "skipped.jsonl", "images-00000.npy"):
        Place(url).put(prepared / name, name)
    options = ["--features", "descriptor", "--clusters", "6"]
    main(["neighbours", url, "--cluster", "ray", *options])
    assert f"{url}/neighbours.parquet" in capsys.readouterr().out
    main(["neighbours", str(prepared), "--cluster", "ray", *options])
    assert pq.read_table(copied(Path(url)) / "neighbours.parquet").equals(
        pq.read_table(prepared / "neighbours.parquet")
    )
    assert not [name for name in Place(url).names() if name.startswith("neighbours.partial")]
    with pytest.raises(SystemExit):
        main(["neighbours", url])
    assert f"{url} is not on this machine: say --cluster ray too" in capsys.readouterr().err


def test_a_search_whose_folder_another_process_removes_is_told(prepared, monkeypatch):
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster import neighbours

    place = Place("memory://searched/store")

    def write_features(job: Any, store: ImageStore) -> None:
        for q in range(4):
            with job.work.write(f"q{q + 1}/features-00000.npy") as path, path.open("wb") as file:
                np.save(file, np.random.default_rng(q).standard_normal((job.images, 8)).astype(np.float16))

    def search(job: Any, pictures: np.ndarray) -> tuple[Quadrant, np.ndarray]:
        return find_for_quadrant(job.by_rows[:], pictures, job.settings), pictures

    monkeypatch.setattr(neighbours, "rows_of_a_file", lambda images: images)
    monkeypatch.setattr(neighbours, "machines", lambda gpu: [])
    monkeypatch.setattr(neighbours, "search_in_cells", search)
    monkeypatch.setattr(neighbours, "_compute_features", write_features)
    monkeypatch.setattr(neighbours, "has_gpus", lambda: False)
    monkeypatch.setattr(neighbours, "_pictures", lambda job, item: np.arange(job.images))
    monkeypatch.setattr(neighbours, "result", lambda work, shared, *_, **__: work(shared, None))
    monkeypatch.setattr(neighbours, "on_every_machine", lambda *_: place.remove())  # after the first quadrant
    with pytest.raises(UserError, match=r"removed meanwhile, .* has found the neighbours of memory://searched/store"):
        neighbours.search_on_cluster(
            ImageStore.open(prepared), place, "descriptor", None, Settings(), False, prepared / "features.npy"
        )


def test_memory_that_a_batch_frees_stays_for_the_next(monkeypatch):
    """As without a cluster: to clear new pages takes as long as to embed."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster import neighbours

    kept = list[int]()
    monkeypatch.setattr(neighbours, "retain_freed_memory", kept.append)
    neighbours._extractor.__wrapped__("descriptor", None, "cpu")
    assert kept == [1 << 30]


def test_machines_find_weights_that_are_named_from_here(prepared, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster import neighbours

    (tmp_path / "weights.pth").touch()
    monkeypatch.chdir(tmp_path)
    asked = []

    def note(work: object, shared: object, *_: object, **options: object) -> None:
        asked.append(shared)
        raise UserError("enough")

    monkeypatch.setattr(neighbours, "has_gpus", lambda: False)
    monkeypatch.setattr(neighbours, "result", note)
    with pytest.raises(UserError, match="enough"):
        neighbours.search_on_cluster(
            ImageStore.open(prepared),
            Place.of(prepared),
            "x",
            Path("weights.pth"),
            Settings(),
            False,
            tmp_path / "f.npy",
        )
    assert asked == [("x", tmp_path / "weights.pth")]


def test_what_is_for_one_machine_is_told(prepared, capsys):
    with pytest.raises(SystemExit):
        main(["neighbours", str(prepared), "--method", "whitened-256", "--cluster", "ray"])
    assert "--method whitened-256 is for one machine" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("memory", "gpu", "found"),
    [(10, False, (8, 60)), (61, False, (4, 200)), (201, False, None), (0, True, (4, 200)), (0, False, (8, 60))],
)
def test_the_machine_that_searches_whole_has_the_memory_and_the_most_processors(memory, gpu, found, monkeypatch):
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster import neighbours, tasks

    head = {"memory": 900.0}
    machines = [{"CPU": 8.0, "memory": 50.0}, {"CPU": 8.0, "memory": 60.0}, {"CPU": 4.0, "GPU": 1.0, "memory": 200.0}]
    monkeypatch.setattr(tasks, "_alive", lambda: [{"Resources": has} for has in (head, *machines)])
    assert neighbours.roomy(memory, gpu) == found


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """3,000 features in groups, so that few of the cells are searched, and pictures: 100 images are copies."""
    generator = np.random.default_rng(0)
    groups = generator.standard_normal((40, 16)) * 4
    features = (groups[generator.integers(40, size=3000)] + generator.standard_normal((3000, 16))).astype(np.float16)
    pictures = np.arange(3000)
    pictures[2900:] = np.arange(100)
    features[2900:] = features[:100]
    return features, pictures


def job_of(features: np.ndarray, folder: Path) -> Any:
    from lorbms_fast.cluster.neighbours import Job

    work = Place(str(folder))
    for number, start in enumerate(range(0, 3000, 700)):
        with work.write(f"q1/features-{number:05d}.npy") as path, path.open("wb") as file:
            np.save(file, features[start : start + 700])
    return Job(work, folder, {}, 3000, "drawn", None, Settings(k=30), False, work, 700)


def agree(found: Quadrant, alone: Quadrant) -> bool:
    return all(np.array_equal(value, getattr(alone, name)) for name, value in vars(found).items())


def test_cells_that_part_their_images(nodes, drawn, tmp_path):
    from lorbms_fast.cluster.neighbours import search_in_cells

    features, pictures = drawn
    alone = find_for_quadrant(features.astype(np.float32), pictures, Settings(k=30))
    assert 1 <= alone.probes < 15
    job = job_of(features, tmp_path)
    for _ in range(2):  # the second time it is all there
        assert agree(search_in_cells(job, pictures)[0], alone)


@pytest.mark.slow
def test_ten_nodes_killed_at_random_points(killed_meanwhile, drawn, monkeypatch, tmp_path):
    from lorbms_fast.cluster import neighbours

    monkeypatch.setattr(neighbours, "SEARCHED", 60)
    monkeypatch.setattr(neighbours, "IN_A_TASK", 100)
    features, pictures = drawn
    alone = find_for_quadrant(features.astype(np.float32), pictures, Settings(k=30))

    def search(number: int) -> bool:
        job = job_of(features, tmp_path / str(number))
        return agree(neighbours.search_in_cells(job, pictures)[0], alone)

    killed_meanwhile(search, 10)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_is_told_as_one():
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster import neighbours

    class Full:
        def write(self, name: str) -> Any:
            return nullcontext(Path("/dev/full"))

    with pytest.raises(OSError, match="No space left") as told:
        neighbours._save(Full(), "features.npy", np.zeros(1 << 20))  # type: ignore[arg-type]
    assert told.value.errno == errno.ENOSPC
