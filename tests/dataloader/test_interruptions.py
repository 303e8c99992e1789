"""Preparing a store against everything that can come in between: kills, full disks, a second process, bad files."""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorbms_fast import parallel
from lorbms_fast.atomic_io import exclusive_lock
from lorbms_fast.cli import main
from lorbms_fast.dataloader import prepare as module
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.prepare_worker import prepare_part
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import layout_of, of_folder
from lorbms_fast.dataloader.staging import StagingFolder
from lorbms_fast.dataloader.store import ImageStore, damaged
from lorbms_fast.errors import UserError
from lorbms_fast.photos import shipped
from lorbms_fast.run import Run

IN_A_SHARD = 400_000 // (3 * 64 * 64 * 3)
PREPARE = """
import sys
from pathlib import Path
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_folder
out, root, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
if __name__ == "__main__":
    prepare_store(out, root, of_folder(root), Recipe(versions=(1, 2, 3)), workers=workers, shard_bytes=400_000)
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 300 real photographs, one of them truncated."""
    folder = tmp_path_factory.mktemp("scenes")
    for photo in shipped.scenes()[:300]:
        shutil.copyfile(photo.path, folder / photo.path.name)
    spoilt = sorted(folder.iterdir())[100]
    spoilt.write_bytes(spoilt.read_bytes()[:5000])
    return folder


@pytest.fixture(scope="module")
def undisturbed(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "store"
    prepare(out, scenes)
    return out


def prepare(out: Path, scenes: Path) -> None:
    prepare_store(out, scenes, of_folder(scenes), Recipe(versions=(1, 2, 3)), shard_bytes=400_000)


@contextlib.contextmanager
def preparing(out: Path, scenes: Path, workers: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that prepares; the block begins when it has begun to."""
    script = out.parent / "prepare.py"
    script.write_text(PREPARE)
    with subprocess.Popen([sys.executable, script, out, scenes, str(workers)], stderr=subprocess.DEVNULL) as process:
        while not (out.with_name(f"{out.name}.partial") / "store").exists() and process.poll() is None:
            time.sleep(0.002)
        yield process
        process.kill()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def records(out: Path) -> int:
    """How many shards have a record."""
    return len(list(out.with_name(f"{out.name}.partial").glob("shard-*.json")))


def finished(out: Path) -> dict[str, int]:
    """The shards that have a record, with what changes when a file is written again."""
    partial = out.with_name(f"{out.name}.partial")
    numbers = [path.stem.removeprefix("shard-") for path in partial.glob("shard-*.json")]
    return {f"images-{n}.npy": (partial / "store" / f"images-{n}.npy").stat().st_ino for n in numbers}


def killed_again_and_again(tmp_path: Path, scenes: Path, undisturbed: Path, kills: int, workers: int) -> int:
    """Kill as often as asked, finish, compare; returns how many kills came upon finished shards, but not all.

    A kill comes up to a twentieth of a second after none, one or two more shards were finished, however long they take.
    """
    random.seed(kills)
    out, inside, kept = tmp_path / "store", 0, dict[str, int]()
    for _ in range(kills):
        more = random.randrange(3)
        with preparing(out, scenes, workers) as process:
            while records(out) < len(kept) + more and process.poll() is None:
                time.sleep(0.002)
            time.sleep(random.uniform(0, 0.05))
            process.kill()
            process.wait()
        if out.exists():  # it was faster than the kill
            shutil.rmtree(out)
            shutil.rmtree(out.with_name("store.partial"), ignore_errors=True)
            kept = {}
        before, kept = kept, finished(out)
        assert before.items() <= kept.items()
        inside += len(kept) > 0
    prepare(out, scenes)
    assert contents(out) == contents(undisturbed)
    assert all((out / name).stat().st_ino == inode for name, inode in kept.items())
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".py"] == ["store"]
    return inside


def test_kills_lose_nothing_that_is_finished(tmp_path, scenes, undisturbed):
    killed_again_and_again(tmp_path, scenes, undisturbed, kills=3, workers=1)


@pytest.mark.slow
def test_twenty_kills_of_several_workers(tmp_path, scenes, undisturbed):
    assert killed_again_and_again(tmp_path, scenes, undisturbed, kills=20, workers=2) >= 10


def test_a_failure_keeps_finished_shards(tmp_path, scenes, undisturbed, monkeypatch):
    make, ids = module.prepare_part, [one.id for one in of_folder(scenes).photographs]

    def shard(task):
        return ids.index(task[0].id) // IN_A_SHARD

    monkeypatch.setattr(
        module, "prepare_part", lambda settings, task: 1 / 0 if shard(task) == 5 else make(settings, task)
    )
    with pytest.raises(ZeroDivisionError):
        prepare(tmp_path / "store", scenes)
    kept = finished(tmp_path / "store")
    assert sorted(kept) == [f"images-{n:05d}.npy" for n in range(5)]
    made = []
    monkeypatch.setattr(module, "prepare_part", lambda settings, task: made.append(shard(task)) or make(settings, task))
    prepare(tmp_path / "store", scenes)
    assert min(made) == 5
    assert contents(tmp_path / "store") == contents(undisturbed)
    assert not (tmp_path / "store.partial").exists()


@pytest.mark.parametrize("spoil", ["shard", "record"])
def test_finished_shards_are_checked_before_they_are_kept(spoil, tmp_path, scenes, undisturbed):
    with preparing(tmp_path / "store", scenes) as process:
        while not finished(tmp_path / "store"):
            time.sleep(0.002)
        process.kill()
        process.wait()
    partial = tmp_path / "store.partial"
    if spoil == "shard":
        path = partial / "store" / "images-00000.npy"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    else:
        path = partial / "shard-00000.json"
        path.write_text(path.read_text().replace('"made_of": "', '"made_of": "?'))
    (partial / "store" / ".images-00007.npy.123.partial").write_bytes(b"left behind")
    prepare(tmp_path / "store", scenes)
    assert contents(tmp_path / "store") == contents(undisturbed)


@pytest.mark.parametrize("when", ["after the shard was made", "while it was made"])
def test_photographs_that_were_mended_meanwhile_are_read_again(when, photographs, tmp_path, monkeypatch):
    """Those of other shards are not, nor looked at."""
    folder, out = shutil.copytree(photographs, tmp_path / "photographs"), tmp_path / "store"
    good, bad = (folder / "photo07.jpg").read_bytes(), folder / "photo07.jpg"
    bad.write_bytes(good[:500])
    make = partial(prepare_store, out, folder, of_folder(folder), Recipe(), shard_bytes=100_000)

    def mend() -> None:
        time.sleep(0.02)  # a file system's clock ticks every few milliseconds
        bad.write_bytes(good)

    def mended_behind(settings, task):
        part = prepare_part(settings, task)
        if part.skipped:
            mend()
        return part

    with monkeypatch.context() as patch:
        if when == "while it was made":
            patch.setattr(module, "prepare_part", mended_behind)
        patch.setattr(StagingFolder, "publish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make()
    kept = finished(out)
    assert len(kept) == 3
    if when == "after the shard was made":
        mend()
    of_another_shard = sorted(folder.iterdir())[-1]
    of_another_shard.touch()
    counts, skipped = make()
    assert (counts.bad, counts.images, skipped) == (0, 24, [])
    assert [(out / name).stat().st_ino == inode for name, inode in sorted(kept.items())] == [False, True, True]


def test_other_settings_do_not_mix_with_finished_shards(tmp_path, scenes):
    with preparing(tmp_path / "store", scenes) as process:
        while not finished(tmp_path / "store"):
            time.sleep(0.002)
        process.kill()
        process.wait()
    kept = finished(tmp_path / "store")
    with pytest.raises(UserError, match=r"store\.partial holds finished shards of another recipe, image_size"):
        prepare_store(tmp_path / "store", scenes, of_folder(scenes), Recipe(), image_size=32)
    assert finished(tmp_path / "store") == kept


def test_two_processes_on_one_store(tmp_path, scenes, undisturbed):
    out = tmp_path / "store"
    with preparing(out, scenes) as process:
        with pytest.raises(UserError, match=r"another process is preparing .*store: wait for it"):
            prepare(out, scenes)
        process.wait()
    assert contents(out) == contents(undisturbed)
    with pytest.raises(UserError, match="exists already"):
        prepare(out, scenes)


def test_a_lock_ends_with_its_block_and_survives_removal(tmp_path):
    folder = tmp_path / "work"
    for _ in range(2):
        with exclusive_lock(folder, "works"):
            shutil.rmtree(folder)
            with (
                exclusive_lock(folder, "works again"),
                pytest.raises(UserError, match="another process is here"),
                exclusive_lock(folder, "is here"),
            ):
                pass
    assert folder.is_dir()


def test_a_disk_that_is_too_small_is_refused_before_work(small_disk, scenes):
    with pytest.raises(UserError, match=r"needs \d+\.\d MB for images and \d\.\d MB are free on its disk: make room"):
        prepare(small_disk / "store", scenes)
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_half_way(small_disk, scenes, undisturbed, monkeypatch):
    monkeypatch.setattr(module, "check_room", lambda *of: None)  # others fill the disk meanwhile
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device; free some space"):
        prepare(small_disk / "store", scenes)
    kept = finished(small_disk / "store")
    assert 3 < len(kept) < 20
    assert not (small_disk / "store").exists()
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    prepare(small_disk / "store", scenes)
    assert all((small_disk / "store" / name).stat().st_ino == inode for name, inode in kept.items())
    assert contents(small_disk / "store") == contents(undisturbed)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """One of each kind of file that turns up among photographs."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    with Image.open(shipped.scenes()[0].path) as scene:
        photo = scene.convert("RGB")
    turned = Image.Exif()
    turned[0x0112] = 6
    photo.save(folder / "plain.jpg")
    photo.save(folder / "progressive.jpg", progressive=True)
    photo.save(folder / "turned.jpg", exif=turned)
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.convert("L").save(folder / "grey.jpg")
    Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.new("RGB", (20_000, 100), "red").save(folder / "wide.jpg")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    Image.new("1", (20_000, 10_000)).save(folder / "absurd.png")
    plain = (folder / "plain.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(plain[: len(plain) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "page.jpg").write_text("<html><title>404</title></html>")
    (folder / "link.jpg").symlink_to(folder / "absent.jpg")
    (folder / "folder.jpg").mkdir()
    return folder


@pytest.mark.parametrize("decoder", ["scaled", "pillow"])
def test_everything_that_turns_up_among_photographs(decoder, zoo, tmp_path, capsys):
    out = tmp_path / "store"
    main(["prepare", str(zoo), "--out", str(out), "--decoder", decoder, "--workers", "2"])
    store = ImageStore.open(out)
    assert store.ids == ["cmyk", "grey", "plain", "progressive", "sixteen", "turned", "wide"]
    skipped = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert {(entry["source"], entry["kind"]): entry["reason"].split("(")[0] for entry in skipped} == {
        ("absurd.png", "bad"): "has more than 100,000,000 pixels",
        ("dot.png", "small"): "has 1 x 1 pixels, below 64",
        ("empty.jpg", "bad"): "is empty ",
        ("link.jpg", "bad"): "is missing",
        ("page.jpg", "bad"): "is not a picture in one of the formats JPEG, PNG, WEBP, AVIF, BMP, GIF, TIFF, PPM",
        ("truncated.jpg", "bad"): "cannot be read ",
    }
    assert "left out: 5 bad, 1 with a side below 64 px" in capsys.readouterr().out
    turned, plain = store.index.to_pylist()[5], store.index.to_pylist()[2]
    assert (turned["width"], turned["height"]) == (plain["height"], plain["width"])
    assert not any(bad for _, bad in damaged(store))


@pytest.mark.parametrize(
    ("secret", "read"),
    [
        ("secret/", of_folder),  # a folder in it
        ("", layout_of),  # the folder itself
        ("store.json", ImageStore.open),
        ("run.json", Run.open),
    ],
)
def test_what_may_not_be_read_is_named(secret, read):
    parent = Path(tempfile.mkdtemp())
    parent.chmod(0o755)
    (parent / "photos").mkdir()
    hidden = parent / "photos" / secret
    if secret.endswith("/"):
        hidden.mkdir()
    elif secret:
        hidden.touch()
    hidden.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        with pytest.raises(UserError, match=rf"{hidden} cannot be read \(Permission denied\): change its permissions"):
            read(parent / "photos")
    finally:
        os.seteuid(user)
        hidden.chmod(0o700)
        shutil.rmtree(parent)


def test_a_worker_that_dies_is_told():
    with pytest.raises(UserError, match="one of 2 workers was ended from outside"):
        list(parallel.ordered_map(os._exit, [1, 1], 2, "dying"))


def test_check_command(tmp_path, undisturbed, capsys):
    out = Path(shutil.copytree(undisturbed, tmp_path / "store"))
    main(["check", str(out)])
    assert "897 images of 64 px in 30 shards, all as written" in capsys.readouterr().out
    path = out / "images-00003.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit) as exit_:
        main(["check", str(out)])
    assert exit_.value.code == 1
    shown = capsys.readouterr().out
    assert "images-00003.npy is not what was written" in shown
    assert "1 of 31 files are damaged" in shown


@pytest.mark.parametrize("file", ["neighbours.parquet", "features.npy"])
def test_check_finds_damaged_neighbours(file, photographs, tmp_path, capsys):
    store = tmp_path / "store"
    prepare_store(store, photographs, of_folder(photographs), Recipe())
    main(["neighbours", str(store), "--features", "descriptor"])
    main(["check", str(store)])
    content = bytearray((store / file).read_bytes())
    content[len(content) // 4] ^= 1
    (store / file).write_bytes(content)
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["check", str(store)])
    assert exit_.value.code == 1
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith(f"{store}/{file} is ")
    assert told.endswith(f"run lorbms-fast neighbours {store} again")
