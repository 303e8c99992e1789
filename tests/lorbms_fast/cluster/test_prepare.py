"""Preparing on a cluster: the store of a single machine, whatever dies meanwhile."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lorbms_fast.cli import main
from lorbms_fast.dataloader import places
from lorbms_fast.dataloader.places import Place, copied
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import photographs_in
from lorbms_fast.errors import UserError
from lorbms_fast.photos import shipped

SMALL = 400_000
"""Bytes of a shard: 32 photographs."""
RECIPE = Recipe()
HERE = "memory://two"
DRIVER = """
import sys
from pathlib import Path
from lorbms_fast.cluster.prepare import list_photographs, prepare_on_cluster
from lorbms_fast.cluster.tasks import connected
from lorbms_fast.dataloader.recipes import Recipe
address, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
with connected(address):
    listing = list_photographs(source, None, None, None, None, out)
    prepare_on_cluster(out, source, listing, Recipe(), shard_bytes=100_000)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def but_root(files: dict[str, bytes]) -> dict[str, bytes]:
    """Less where the photographs came from, which differs."""
    facts = json.loads(files["store.json"])
    return files | {"store.json": json.dumps(facts | {"root": "", "annotations": ""}).encode()}


def put(folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            Place(url).put(path, path.relative_to(folder).as_posix())


def on_one_machine(source: Path, out: Path, shard_bytes: int) -> dict[str, bytes]:
    prepare_store(out, source, photographs_in(source, "tar"), RECIPE, shard_bytes=shard_bytes)
    return contents(out)


def on_cluster(source: Path, out: Path, shard_bytes: int) -> None:
    from lorbms_fast.cluster.prepare import list_photographs, prepare_on_cluster

    listing = list_photographs(source, None, None, None, None, out)
    prepare_on_cluster(out, source, listing, RECIPE, shard_bytes=shard_bytes)


def test_the_store_is_that_of_one_machine(nodes, shards, tmp_path):
    expected = on_one_machine(shards, tmp_path / "one", SMALL)
    on_cluster(shards, tmp_path / "many", SMALL)
    assert contents(tmp_path / "many") == expected
    skipped = [json.loads(line) for line in expected["skipped.jsonl"].splitlines()]
    bad = [entry["source"] for entry in skipped if entry["kind"] == "bad"]
    assert [source.rpartition(" (")[0] for source in bad] == ["000000045 in 00001.tar"]
    assert len(json.loads(expected["store.json"])["shards"]) == 8
    assert not (tmp_path / "many.partial").exists()


def test_from_and_to_elsewhere(bucket, nodes, shards, tmp_path, monkeypatch, capsys):
    expected = but_root(on_one_machine(shards, tmp_path / "one", 64 << 20))
    put(shards, f"{bucket}/shards")
    command = ["prepare", f"{bucket}/shards", "--out", f"{bucket}/stores/many", "--cluster", "ray"]
    command += ["--min-side", "1"]
    main(command)
    assert "cannot be read (image file is truncated" in capsys.readouterr().out
    monkeypatch.setattr(places, "MAX_BLOCK", 1_000_000)  # several blocks
    copy = copied(Path(f"{bucket}/stores/many"))
    facts = json.loads((copy / "store.json").read_text())
    assert facts["root"] == f"{bucket}/shards"
    assert but_root(contents(copy)) == expected
    assert Place(f"{bucket}/stores/many.partial").names() == []
    with pytest.raises(SystemExit):
        main(command)
    assert f"{bucket}/stores/many exists already" in capsys.readouterr().err
    other = Place(f"{bucket}/other.partial")
    for name, content in {"settings.json": '{"image_size": 32}', "shard-00000.json": "{}"}.items():
        with other.write(name) as path:
            path.write_text(content)
    with pytest.raises(SystemExit):
        main(["prepare", str(shards), "--out", f"{bucket}/other", "--cluster", "ray"])
    assert f"{bucket}/other.partial holds finished shards of another" in capsys.readouterr().err
    assert not Place(f"{bucket}/other").names()
    Place(f"{bucket}/taken").put(shards / "00006.tar", "another.tar")
    with pytest.raises(SystemExit):
        main(["prepare", str(shards), "--out", f"{bucket}/taken", "--cluster", "ray"])
    assert f"{bucket}/taken exists already, and is no store" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["prepare", f"{bucket}/nothing", "--out", str(tmp_path / "x"), "--cluster", "ray"])
    assert f"{bucket}/nothing is missing or empty" in capsys.readouterr().err


@pytest.mark.slow
def test_other_layouts_elsewhere(bucket, nodes, tmp_path):
    """Loose photographs, and COCO's, whose annotations are read."""
    source = tmp_path / "coco"
    (source / "train2017").mkdir(parents=True)
    (source / "annotations").mkdir()
    images = []
    for i, photo in enumerate(shipped.scenes()[:12]):
        shutil.copyfile(photo.path, source / "train2017" / f"{i:012d}.jpg")
        images.append({"id": i, "file_name": f"{i:012d}.jpg"})
    (source / "annotations" / "instances_train2017.json").write_text(json.dumps({"images": images, "annotations": []}))
    put(source, f"{bucket}/coco")
    for layout in ("coco", "folder"):
        one, many = tmp_path / f"one-{layout}", tmp_path / f"many-{layout}"
        main(["prepare", str(source), "--layout", layout, "--out", str(one)])
        main(["prepare", f"{bucket}/coco", "--layout", layout, "--out", str(many), "--cluster", "ray"])
        assert but_root(contents(many)) == but_root(contents(one))
    facts = json.loads((tmp_path / "many-coco" / "store.json").read_text())
    assert facts["annotations"] == f"{bucket}/coco/annotations/instances_train2017.json"


def test_lists_of_archives_elsewhere_are_kept(shards, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster.prepare import _list_archive
    from lorbms_fast.dataloader.sources.tar import named_members

    source, work = Place("memory://lists"), Place(str(tmp_path))
    source.put(shards / "00001.tar", "a/00001.tar")
    (tmp_path / "a").mkdir()
    shutil.copyfile(shards / "00001.tar", tmp_path / "a" / "00001.tar")
    expected = named_members(tmp_path, [Path("a/00001.tar")])
    item = (0, "a/00001.tar", "first")
    assert _list_archive((source, work), item) == expected
    source.remove()
    assert _list_archive((source, work), item) == expected  # of what is kept
    with pytest.raises(UserError, match="memory://lists cannot be reached"):
        _list_archive((source, work), (0, "a/00001.tar", "another"))
    (tmp_path / "listed" / "000000.json").write_text('{"of":')
    with pytest.raises(UserError, match="memory://lists cannot be reached"):
        _list_archive((source, work), item)


def test_names_elsewhere_lead_to_no_file_outside(monkeypatch):
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster.prepare import _names_of

    monkeypatch.setattr(Place, "names", lambda place: ["../outside.jpg", "a/inside.jpg"])
    with _names_of(Path("memory://bucket/photographs")) as folder:
        assert list(folder.parent.rglob("*.jpg")) == [folder / "a" / "inside.jpg"]


def test_a_failure_names_machine_and_file(nodes, shards, tmp_path):
    from lorbms_fast.cluster.prepare import list_photographs, prepare_on_cluster

    out = tmp_path / "store"
    listing = list_photographs(shards, None, None, None, None, out)
    with pytest.raises(UserError, match=r"shard 0 of 1 \(.*\), on \S+: 000000045 in 00001\.tar \(from"):
        prepare_on_cluster(out, shards, listing, RECIPE, on_bad="stop")
    assert not out.exists()
    assert not out.with_name("store.partial").exists()


def test_a_whole_bucket_is_no_place_for_a_store(shards):
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster.prepare import list_photographs

    with pytest.raises(UserError, match="--out memory://two is a whole bucket: name a folder in it"):
        list_photographs(shards, None, None, None, None, Path(HERE))


def test_machines_may_work_in_other_folders(shards, tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster import prepare

    def in_another_folder(work, shared, tasks, *_: object, **options: object):
        for task in tasks:
            with monkeypatch.context() as there:
                there.chdir("/")
                found = work(shared, task.item)
            yield task, found

    monkeypatch.setattr(prepare, "results", in_another_folder)
    begun = list[None]()
    monkeypatch.setattr(prepare, "decode_alone", lambda: begun.append(None))
    monkeypatch.chdir(shards.parent)
    source = Path(shards.name)
    prepare.prepare_on_cluster(tmp_path / "many", source, photographs_in(source, "tar"), RECIPE)
    assert begun  # OpenCV would take a thread for each processor of the machine in each of its tasks
    assert contents(tmp_path / "many") == on_one_machine(shards, tmp_path / "one", 64 << 20)


def test_two_processes_at_one_place(shards, tmp_path, monkeypatch):
    """Where there are no locks: those that write the same both may, another is refused, and the last is told."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster import prepare

    def one_after_another(work, shared, tasks, *_: object, **options: object):
        for task in tasks:
            meanwhile.pop(0)() if meanwhile else None
            yield task, work(shared, task.item)

    def make(out: str, recipe: Recipe = RECIPE) -> None:
        prepare.prepare_on_cluster(Path(out), shards, listing, recipe, shard_bytes=SMALL)

    def refused() -> None:
        with pytest.raises(UserError, match=r"a\.partial is for other photographs or options, claimed by process \d+"):
            make(f"{HERE}/a", replace(RECIPE, min_side=70))

    monkeypatch.setattr(prepare, "results", one_after_another)
    listing = photographs_in(shards, "tar")
    expected = but_root(on_one_machine(shards, tmp_path / "one", SMALL))
    meanwhile: list[Callable[[], None]] = [refused]
    make(f"{HERE}/a")
    assert but_root(contents(copied(Path(f"{HERE}/a")))) == expected
    assert not Place(f"{HERE}/a.partial").names()

    meanwhile = [lambda: None, lambda: make(f"{HERE}/b")]
    with pytest.raises(UserError, match=r"b\.partial was removed meanwhile, by a person or by another process"):
        make(f"{HERE}/b")
    assert but_root(contents(copied(Path(f"{HERE}/b")))) == expected
    with pytest.raises(UserError, match="b exists already"):  # listed before the other was at its end
        make(f"{HERE}/b")


def test_one_of_several_processes_that_begin_at_once_wins(bucket):
    from lorbms_fast.cluster.claims import claim

    work, everyone = Place(f"{bucket}/at-once.partial"), threading.Barrier(4)

    def begin(options: int) -> str:
        everyone.wait()
        try:
            return claim(work, [options], "options")
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(begin, range(4)))
    refused = [text for text in found if f"{bucket}/at-once.partial is for other options, claimed by process" in text]
    assert len(refused) == 3


@pytest.mark.slow
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_driver_that_is_killed_goes_on(elsewhere, request, nodes, shards, tmp_path):
    expected = on_one_machine(shards, tmp_path / "one", 100_000)
    out = Path(f"{request.getfixturevalue('bucket')}/killed/store") if elsewhere else tmp_path / "many"
    partial = Place.of(out.with_name(f"{out.name}.partial"))
    command = [sys.executable, "-c", DRIVER, nodes.address, str(shards), str(out)]

    def finished() -> list[str]:
        return [name for name in partial.names() if name.startswith("shard-")]

    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}) as driver:
        while len(finished()) < 3 and driver.poll() is None:
            time.sleep(0.05)
        driver.kill()
    time.sleep(2)  # Ray ends the dead driver's tasks
    numbers = [name.removeprefix("shard-").removesuffix(".json") for name in finished()]
    images = Place.of(out) if elsewhere else partial / "store"
    kept = {f"images-{n}.npy": images.versions()[f"images-{n}.npy"] for n in numbers}
    assert 3 <= len(kept) < 30
    assert subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == 0
    assert kept.items() <= Place.of(out).versions().items()
    found = contents(copied(out))
    assert (but_root(found) if elsewhere else found) == (but_root(expected) if elsewhere else expected)


@pytest.mark.slow
def test_ten_nodes_killed_at_random_points(killed_meanwhile, shards, tmp_path):
    expected = on_one_machine(shards, tmp_path / "one", 50_000)

    def store(number: int) -> bool:
        out = tmp_path / f"store-{number}"
        on_cluster(shards, out, 50_000)
        return contents(out) == expected and not out.with_name(f"{out.name}.partial").exists()

    killed_meanwhile(store, 10)
