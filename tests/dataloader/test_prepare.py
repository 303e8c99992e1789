"""Preparing stores: right, whole or not at all, and clear about what it left out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lorbms_fast.cli import main
from lorbms_fast.dataloader.decoders import cut, read_rgb, reference
from lorbms_fast.dataloader.decoders.scaled import decode
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import RECIPES, Crop, Recipe
from lorbms_fast.dataloader.shards import Shards
from lorbms_fast.dataloader.sources import of_coco, of_folder
from lorbms_fast.dataloader.store import ImageStore, damaged
from lorbms_fast.errors import UserError


def fails(capsys, *arguments: object) -> str:
    """The one line that a command fails with."""
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert exit_.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lorbms-fast:")]
    assert len(error) == 1
    return error[0]


@pytest.fixture
def coco(tmp_path: Path, photographs: Path) -> Path:
    """Six images of 260 x 210 or less in COCO's layout; image i has i boxes, the last file is missing."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    images, annotations = [], []
    for i in range(6):
        name = f"{i:012d}.jpg"
        if i != 5:
            with Image.open(photographs / f"photo{i:02d}.jpg") as image:
                image.resize((260, 210 if i != 4 else 190)).save(root / "train2017" / name)
        images.append({"id": i, "file_name": name, "width": 260, "height": 210})
        annotations += [{"image_id": i, "bbox": [0, 0, 1, 1], "category_id": 1} for _ in range(i)]
    content = {"images": [*images, images[0]], "annotations": annotations, "categories": []}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return root


def test_store_is_readable_by_others(photographs, tmp_path):
    main(["prepare", str(photographs), "--out", str(tmp_path / "s"), "--workers", "1"])
    images = np.load(tmp_path / "s" / "images-00000.npy", mmap_mode="r")
    index = pq.read_table(tmp_path / "s" / "index.parquet").to_pylist()
    assert images.shape == (24, 64, 64, 3)
    for image, row in zip(images, index, strict=True):
        crop = Crop(row["crop_x"], row["crop_y"], row["crop_side"], row["flip"])
        assert np.array_equal(image, cut(read_rgb(photographs / row["source"]), crop, 64))
    assert not any(bad for _, bad in damaged(ImageStore.open(tmp_path / "s")))


def test_workers_do_not_change_a_byte_and_seeds_do(photographs, tmp_path):
    contents = []
    for workers, seed in ((1, 0), (2, 0), (1, 1)):
        out = tmp_path / f"{workers}-{seed}"
        prepare_store(out, photographs, of_folder(photographs), Recipe(), seed=seed, workers=workers)
        contents.append((out / "images-00000.npy").read_bytes() + (out / "index.parquet").read_bytes())
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_same_square_at_another_resolution(photographs, tmp_path):
    prepare_store(tmp_path / "s", photographs, of_folder(photographs), Recipe(versions=(1, 2)))
    store = ImageStore.open(tmp_path / "s")
    assert store.ids[:2] == ["photo00_1", "photo00_2"]
    for i in range(4):
        assert np.array_equal(store.square(i, 64), store.images[i])
    assert store.square(0, 30).shape == (30, 30, 3)


def test_coco_recipes_filter_and_name(coco, tmp_path, capsys):
    listing = of_coco(coco, coco / "annotations" / "instances_train2017.json")
    assert [photograph.boxes for photograph in listing.photographs] == [0, 1, 2, 3, 4, 5]
    recipe = Recipe(versions=RECIPES["tr_v5"].versions, min_side=200, min_boxes=3)
    counts, skipped = prepare_store(tmp_path / "s", coco, listing, recipe)
    assert (counts.named, counts.with_enough_boxes, counts.small, counts.bad, counts.images) == (6, 3, 1, 1, 5)
    assert {entry.kind: entry.source for entry in skipped} == {
        "small": "train2017/000000000004.jpg",
        "bad": "train2017/000000000005.jpg",
    }
    assert ImageStore.open(tmp_path / "s").ids == [f"000000000003_{version}" for version in range(1, 6)]
    main(["prepare", str(coco), "--recipe", "tr_v6", "--out", str(tmp_path / "t"), "--limit", "2", "--workers", "1"])
    assert "2 of them drawn" in capsys.readouterr().out


def test_bad_files_are_skipped_named_and_counted(photographs, tmp_path, capsys):
    folder = Path(shutil.copytree(photographs, tmp_path / "photos"))
    (folder / "photo03.jpg").write_bytes((folder / "photo03.jpg").read_bytes()[:700])
    (folder / "page.jpg").write_text("<html>")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    main(["prepare", str(folder), "--out", str(tmp_path / "s"), "--workers", "1"])
    out = capsys.readouterr().out
    assert "left out: 2 bad, 1 with a side below 64 px" in out
    assert "photo03.jpg" in out
    skipped = [json.loads(line)["source"] for line in (tmp_path / "s" / "skipped.jsonl").read_text().splitlines()]
    assert sorted(skipped) == ["dot.png", "page.jpg", "photo03.jpg"]
    assert len(ImageStore.open(tmp_path / "s")) == 23


def test_fewer_photographs_than_training_needs_are_told(photographs, tmp_path, capsys):
    for limit, told in (("10", True), ("11", False)):
        main(["prepare", str(photographs), "--out", str(tmp_path / limit), "--limit", limit, "--workers", "1"])
        assert ("warning: 10 images will not do to train on: 11 or more" in capsys.readouterr().err) == told


def test_stopping_at_a_bad_file_leaves_nothing(photographs, tmp_path, capsys):
    folder = Path(shutil.copytree(photographs, tmp_path / "photos"))
    (folder / "photo03.jpg").write_bytes(b"")
    arguments = ("prepare", folder, "--out", tmp_path / "s", "--on-bad", "stop", "--workers", 1)
    assert "photo03.jpg is empty" in fails(capsys, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda root: None, "is missing"),
        (lambda root: root.mkdir(), "holds no photographs"),
        (lambda root: root.write_text(""), "is not a folder: name the one that it is in"),
        (lambda root: (root.mkdir(), (root / "a.zip").touch()), "but 1 other file (a.zip): unpack what is packed"),
    ],
)
def test_folders_that_give_nothing(make, named, tmp_path, capsys):
    make(tmp_path / "photos")
    assert named in fails(capsys, "prepare", tmp_path / "photos", "--out", tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_only_bad_files(tmp_path, capsys):
    (tmp_path / "a.jpg").write_text("x")
    assert "none of 1 photograph in" in fails(capsys, "prepare", tmp_path, "--out", tmp_path / "s", "--workers", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
    Image.new("RGB", (70, 80)).save(tmp_path / "a.jpg")
    main(["prepare", str(tmp_path), "--out", str(tmp_path / "s"), "--workers", "1"])


def test_json_that_names_absent_files(coco, tmp_path, capsys):
    shutil.rmtree(coco / "train2017")
    assert "none of the 6 images" in fails(capsys, "prepare", coco, "--recipe", "tr_v4", "--out", tmp_path / "s")


@pytest.mark.parametrize("content", ["{", "[]", '{"images": 3}'])
def test_json_that_is_no_coco_file(content, coco, tmp_path, capsys):
    (coco / "annotations" / "instances_train2017.json").write_text(content)
    error = fails(capsys, "prepare", coco, "--recipe", "tr_v4", "--out", tmp_path / "s")
    assert "instances_train2017.json" in error


def test_dali_that_is_not_there_is_told_before_photographs_are_listed(photographs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lorbms_fast.commands.prepare.layout_of", None)
    monkeypatch.setattr("lorbms_fast.dataloader.decoders.dali.obstacle", lambda device: f"no DALI on {device}")
    assert "no DALI on" in fails(capsys, "prepare", photographs, "--out", tmp_path / "s", "--decoder", "dali")


def test_a_link_to_nowhere_is_no_place_for_a_store(photographs, tmp_path, capsys):
    (tmp_path / "store").symlink_to("nowhere")
    with pytest.raises(SystemExit):
        main(["prepare", str(photographs), "--out", str(tmp_path / "store")])
    assert "store exists already" in capsys.readouterr().err
    assert not (tmp_path / "store.partial").exists()


def test_existing_store_is_not_touched(store, photographs, monkeypatch, capsys):
    monkeypatch.setattr("lorbms_fast.commands.prepare.layout_of", None)  # it is told before photographs are listed
    assert "exists already" in fails(capsys, "prepare", photographs, "--out", store.path, "--workers", 1)
    ImageStore.open(store.path)


@pytest.mark.parametrize("name", ["images-00000.npy", "index.parquet", "store.json"])
@pytest.mark.parametrize("how", ["cut short", "missing", "noise"])
def test_damaged_stores_are_refused(store, name, how):
    path = store.path / name
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(content[: len(content) // 2] if how == "cut short" else bytes(100))
    with pytest.raises(UserError, match=r"again|not an image store"):
        ImageStore.open(store.path)


def test_what_may_not_be_read_is_not_called_damaged(store, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError):
        Shards.open({store.path / "images-00000.npy": store.images.shape}, "again")
    with pytest.raises(PermissionError):
        NeighbourTable.load(store)
    monkeypatch.undo()
    monkeypatch.setattr("lorbms_fast.dataloader.store.read_rows", refuse)
    with pytest.raises(PermissionError):
        ImageStore.open(store.path)


def test_changed_pixels_are_found(store):
    path = store.path / "images-00000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert [name for name, bad in damaged(ImageStore.open(store.path)) if bad] == ["images-00000.npy"]


def test_a_source_that_went_away_is_named(photographs, tmp_path):
    folder = Path(shutil.copytree(photographs, tmp_path / "photos"))
    prepare_store(tmp_path / "s", folder, of_folder(folder), Recipe())
    store = ImageStore.open(tmp_path / "s")
    (folder / "photo00.jpg").unlink()
    with pytest.raises(UserError, match=r"photo00\.jpg, of which .* was made, is missing"):
        store.square(0, 32)


def test_a_store_is_told_where_its_photographs_have_moved_to(photographs, tmp_path):
    folder, out = shutil.copytree(photographs, tmp_path / "photographs"), tmp_path / "store"
    prepare_store(out, folder, of_folder(folder), Recipe())
    square = ImageStore.open(out).square(3, 64)
    folder.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"photographs .* is missing: put it back, write where it is now"):
        ImageStore.open(out).square(3, 64)
    facts = (out / "store.json").read_text()
    (out / "store.json").write_text(facts.replace(f'"{folder}"', f'"{tmp_path / "moved"}"'))
    assert np.array_equal(ImageStore.open(out).square(3, 64), square)
    assert not any(bad for _, bad in damaged(ImageStore.open(out)))


def test_another_photograph_of_the_same_name_and_size_is_told(photographs, tmp_path):
    """A file whose tags have changed is none."""
    folder, out = shutil.copytree(photographs, tmp_path / "photographs"), tmp_path / "store"
    prepare_store(out, folder, of_folder(folder), Recipe(versions=(1, 3)))
    store = ImageStore.open(out)
    before, first = store.squares([6, 7], 224, decode), folder / "photo03.jpg"
    with Image.open(first) as picture:
        turned = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    first.write_bytes(first.read_bytes()[:2] + b"\xff\xfe\0\6rate" + first.read_bytes()[2:])
    assert np.array_equal(store.squares([6, 7], 224, decode), before)
    turned.save(first)
    for side in (32, 224):
        with pytest.raises(UserError, match=r"photo03.jpg is another picture than the one of which"):
            store.squares([7], side, decode)


def test_a_store_that_lists_a_damaged_photograph_is_read_as_before(photographs, tmp_path, monkeypatch):
    """`prepare` leaves such out now."""
    folder = shutil.copytree(photographs, tmp_path / "photographs")
    whole = (folder / "photo03.jpg").read_bytes()
    (folder / "photo03.jpg").write_bytes(whole[: len(whole) // 2] + b"\xff\xd9")
    with monkeypatch.context() as before:
        before.setattr(reference, "DAMAGED", ())
        prepare_store(tmp_path / "old", folder, of_folder(folder), Recipe())
    store = ImageStore.open(tmp_path / "old")
    assert np.array_equal(store.squares([3], store.side, decode)[0], store.images[3])
    prepare_store(tmp_path / "new", folder, of_folder(folder), Recipe())
    assert {*store.ids} - {*ImageStore.open(tmp_path / "new").ids} == {"photo03"}


def test_one_photograph_under_two_names_is_one_image(photographs, tmp_path):
    for name in ("a/one.jpg", "b/two.jpg", "three.jpg"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photographs / ("photo03.jpg" if name != "three.jpg" else "photo04.jpg"), tmp_path / "p" / name)
    prepare_store(tmp_path / "s", tmp_path / "p", of_folder(tmp_path / "p"), Recipe(versions=(1, 2, 3)), image_size=32)
    store = ImageStore.open(tmp_path / "s")
    assert store.ids == [f"{name}_{version}" for name in ("a/one", "b/two", "three") for version in (1, 2, 3)]
    assert np.array_equal(store.images[0:3], store.images[3:6])
    assert not np.array_equal(store.images[0:3], store.images[6:9])


def test_stores_from_before_crops_were_drawn_by_content_are_read(store):
    facts = json.loads((store.path / "store.json").read_text())
    assert facts["crops"] == "by content"
    for name in ("crops", "annotations"):
        del facts[name]
    for name in ("name", "part"):
        del facts["recipe"][name]
    (store.path / "store.json").write_text(json.dumps(facts))
    assert np.array_equal(ImageStore.open(store.path).square(5, 64), store.square(5, 64))
