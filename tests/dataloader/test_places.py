"""Folders elsewhere, as fsspec reaches them: here in its own `memory://`, which is this process's."""

import errno
import os
import shutil
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from lorbms_fast.cli import main
from lorbms_fast.config import to_json
from lorbms_fast.dataloader import places
from lorbms_fast.dataloader.image_file import BadImage, ByteRange
from lorbms_fast.dataloader.places import Place, Unreachable, copied, nearby
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.photos import shipped
from lorbms_fast.run import Run
from tests.conftest import TINY

HERE = "memory://bucket/some"


@pytest.fixture(autouse=True)
def _caches(tmp_path, monkeypatch) -> Iterator[None]:
    monkeypatch.setenv("LORBMS_CACHE", str(tmp_path / "cache"))
    yield
    fsspec.filesystem("memory").store.clear()


def put(folder: Path, url: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            Place(url).put(path, path.relative_to(folder).as_posix())


def test_a_folder_of_copies_that_another_made_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"lorbms-fast-{os.getuid()}").symlink_to(tmp_path)
    places._scratch_base.cache_clear()
    with pytest.raises(UserError, match="is not yours"), places.scratch():
        pass


def test_a_place_that_is_removed_meanwhile(monkeypatch):
    monkeypatch.setattr(Place, "names", lambda self: ["what was there"])
    Place(f"{HERE}/gone").remove()


def test_files_of_a_place():
    place = Place.of(Path(HERE))
    assert place.name == HERE
    assert place.names() == []
    with place.write("a/b.txt") as path:
        path.write_text("first")
    before = place.versions()
    assert place.names() == ["a/b.txt"]
    assert place.exists("a/b.txt")
    assert not place.exists("a")
    assert place.near("a/b.txt").read_text() == "first"
    assert place.read("a/b.txt") == b"first"
    with place.write("a/b.txt") as path:
        path.write_text("second")
    assert place.versions() != before
    place.remove()
    assert place.names() == []


def test_a_large_file_is_copied_in_blocks(tmp_path, monkeypatch):
    content, place = np.random.default_rng(0).bytes(20_000_003), Place(HERE)
    (tmp_path / "content").write_bytes(content)
    place.put(tmp_path / "content", "00000.tar")
    monkeypatch.setattr(places, "MAX_BLOCK", 1 << 20)
    monkeypatch.setattr(places, "AT_ONCE", 2)

    def whole(self: MemoryFileSystem, name: str, target: str) -> None:  # as obstore's does
        Path(target).write_bytes(self.cat_file(name))

    monkeypatch.setattr(MemoryFileSystem, "get_file", whole)
    tracemalloc.start()
    try:
        place.fetch("00000.tar", tmp_path / "copy")
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.parametrize("why", ["gone", "full", "changed"])
def test_what_cannot_be_copied_whole_is_not_copied(why, tmp_path, monkeypatch):
    place = Place(HERE)
    with place.write("a.tar") as path:
        path.write_bytes(bytes(3 << 20))
    monkeypatch.setattr(places, "MAX_BLOCK", 1 << 20)
    read = Place._cat

    def spoil(self: Place, name: str, start: int, end: int) -> bytes:
        block = read(self, name, start, end)
        if start == 2 << 20:
            if why == "gone":
                place.remove()
                return read(self, name, start, end)
            if why == "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsspec.filesystem("memory").pipe_file(f"{HERE}/a.tar", bytes(4 << 20))
        return block

    monkeypatch.setattr(Place, "_cat", spoil)
    said = {"gone": "memory://.* cannot be reached", "full": f"cannot write {tmp_path}", "changed": "was written anew"}
    with pytest.raises(UserError, match=said[why]):
        place.fetch("a.tar", tmp_path / "a.tar")
    assert not list(tmp_path.iterdir())


def test_photographs_are_read_by_few_requests(tmp_path):
    content = np.random.default_rng(0).bytes(5_000_000)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "0.tar").write_bytes(content)
    (tmp_path / "empty.jpg").touch()
    put(tmp_path, HERE)
    places = [ByteRange("x/0.tar", 100, 50), ByteRange("x/0.tar", 2000, 60), ByteRange("x/0.tar", 4_000_000, 70)]
    others = [
        ByteRange("empty.jpg"),
        ByteRange("gone.jpg"),
        ByteRange("../up.jpg"),
        ByteRange("x/0.tar", 4_999_990, 20),
    ]
    with nearby(Path(HERE), [*places, *others]) as folder:
        for one in places:
            assert one.read(folder) == content[one.offset : one.offset + (one.length or 0)]
        assert (folder / "x" / "0.tar").stat().st_blocks * 512 < 100_000  # the rest are holes
        for one, reason in zip(
            others, ["is empty", "is missing", "is not in the folder", "ends 10 bytes"], strict=True
        ):
            with pytest.raises(BadImage, match=reason):
                one.read(folder)
    assert not folder.exists()


def test_a_store_elsewhere_is_copied_once_and_again_where_it_changed(tmp_path):
    photos, out = tmp_path / "photos", tmp_path / "store"
    photos.mkdir()
    for photo in shipped.scenes()[:12]:
        shutil.copyfile(photo.path, photos / photo.path.name)
    prepare_store(out, photos, of_folder(photos), Recipe())
    put(out, HERE)
    opened = ImageStore.open(Path(HERE))
    assert opened.path.is_relative_to(tmp_path / "cache")
    assert np.array_equal(opened.images[:], ImageStore.open(out).images[:])
    first = {path.name: path.stat().st_mtime_ns for path in opened.path.iterdir()}
    with Place(HERE).write("neighbours.parquet") as path:
        path.write_bytes(b"new")
    again = ImageStore.open(Path(HERE))
    assert (again.path / "neighbours.parquet").read_bytes() == b"new"
    assert {name: (again.path / name).stat().st_mtime_ns for name in first} == first


def test_photographs_of_a_store_may_be_elsewhere(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copyfile(shipped.scenes()[0].path, photos / "a.jpg")
    prepare_store(tmp_path / "store", photos, of_folder(photos), Recipe())
    here = ImageStore.open(tmp_path / "store")
    put(photos, HERE)
    there = ImageStore(here.path, here.images, here.index, Path(HERE), here.facts)
    assert np.array_equal(there.square(0, 96), here.square(0, 96))
    fsspec.filesystem("memory").store.clear()
    with pytest.raises(UserError, match=r"bucket/some/a\.jpg, of which .* is missing"):
        there.square(0, 96)


def test_training_opens_a_store_elsewhere(store, tmp_path):
    put(store.path, HERE)
    (tmp_path / "tiny.json").write_text(to_json(TINY))
    out = tmp_path / "run"
    main(["train", HERE, "--out", str(out), "--config", str(tmp_path / "tiny.json"), "--iterations", "1"])
    run = Run.open(out)
    assert run.store == ImageStore.open(Path(HERE)).path
    assert run.checkpoints()
    main(["train", HERE, "--resume", str(out), "--iterations", "2"])
    assert Run.open(out).checkpoints()[-1].name.endswith("2")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "404: <Error><Message>The bucket does not exist</Message>\n\nDebug source:\nx",
            "OSError: The bucket does not",
        ),
        (
            "PUT http://169.254.169.254/latest/api/token",
            "no credentials are in the environment: for S3 AWS_ACCESS_KEY_ID",
        ),
        ("no route\n\nDebug source:\nPages {}", r"\(OSError: no route\): check its name"),
    ],
)
def test_what_a_library_says_is_told_in_short(said, told, monkeypatch):
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(said)

    monkeypatch.setattr(MemoryFileSystem, "find", fail)
    with pytest.raises(Unreachable, match=f"{HERE} cannot be reached .*{told}"):
        Place(HERE).names()


def test_what_cannot_be_reached_is_named(capsys):
    with pytest.raises(UserError, match="s3:// names no place: write it as s3://BUCKET/NAME"):
        Place.of(Path("s3://"))
    with pytest.raises(UserError, match=r"nosuch://x cannot be reached: .*nosuch"):
        Place("nosuch://x").names()
    with pytest.raises(Unreachable, match=r"memory://gone cannot be reached \(FileNotFoundError"):
        Place("memory://gone").read("a")
    with pytest.raises(SystemExit):
        main(["train", HERE, "--out", "run"])
    assert f"{HERE} is not an image store" in capsys.readouterr().err
    for arguments in (["prepare", HERE, "--out", "store"], ["prepare", ".", "--out", HERE]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert f"{HERE} is not on this machine: say --cluster ray too" in capsys.readouterr().err


def test_a_package_that_is_missing_is_named(monkeypatch, capsys):
    """Of a scheme's own file system, and fsspec itself: for a source, a store that is written and one that is read."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'lorbms-fast[cluster]', or make test-cluster")
    from lorbms_fast.cluster import tasks

    monkeypatch.setattr(tasks, "connected", nullcontext)
    monkeypatch.setattr(places, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    for command in (
        ["prepare", "gs://photos/x", "--out", "store", "--cluster", "ray"],
        ["prepare", ".", "--out", "gs://photos/x", "--cluster", "ray"],
        ["train", "gs://photos/x", "--out", "run"],
    ):
        with pytest.raises(SystemExit):
            main(command)
        said = capsys.readouterr().err
        assert "gs://photos/x" in said
        assert "install gcsfs" in said
        assert "pip install 'lorbms-fast[train,cluster]'" in said
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(UserError, match=r"s3://a/b cannot be reached: .*fsspec.*pip install 'lorbms-fast"):
        Place("s3://a/b").names()


def test_the_scheme_of_files_is_left_out(tmp_path):
    assert copied(Path(f"file://{tmp_path}")) == tmp_path
