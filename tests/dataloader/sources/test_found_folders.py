"""Folders, archives and annotations as people have them, beside what a fresh download gives."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from lorbms_fast.cli import main
from lorbms_fast.dataloader.prepare import choose, prepare_store
from lorbms_fast.dataloader.recipes import RECIPES, Recipe
from lorbms_fast.dataloader.sources import layout_of, of_coco, of_folder, photographs_in
from lorbms_fast.dataloader.sources.coco import find_annotations
from lorbms_fast.dataloader.sources.tar import of_tar
from lorbms_fast.dataloader.sources.voc import of_voc, read_annotation
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError

FIRST = "000000000001.jpg"


def picture(seed: int = 0, format: str = "JPEG", size: tuple[int, int] = (12, 10)) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def put(root: Path, *names: str, **options: Any) -> Path:
    """Write a picture of its own under each name."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(seed, **options))
    return root


def entry(identity: Any, name: str | None = None, **more: Any) -> dict[str, Any]:
    return {"id": identity, "file_name": name or f"{identity:012d}.jpg", "width": 240, "height": 230, **more}


def box(image: Any, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0, **more}


def annotate(root: Path, images: list, boxes: list | None = None, name: str = "instances_train2017.json") -> Path:
    path = root / "annotations" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images} | ({} if boxes is None else {"annotations": boxes})))
    return path


def shard(path: Path, names: list[str], first: int = 0, mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for seed, name in enumerate(names, start=first):
            data = picture(seed)
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def ids(listing) -> list[str]:
    return [one.id for one in listing.photographs]


def places(listing) -> list[str]:
    return [one.place.path for one in listing.photographs]


# COCO as it is published


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training images of six boxes, two of validation, six of test; all files of both downloads."""
    root = tmp_path_factory.mktemp("data") / "coco"
    parts = {"train2017": range(1, 6), "val2017": range(11, 13), "test2017": range(21, 27)}
    for part, numbers in parts.items():
        put(root / part, *(f"{i:012d}.jpg" for i in numbers), size=(240, 230))
    for part in ("train2017", "val2017"):
        images = [entry(i) for i in parts[part]]
        boxes = [box(i, id=10 * i + k) for i in parts[part] for k in range(6)]
        for kind in ("instances", "person_keypoints", "captions"):
            annotate(root, images, boxes, f"{kind}_{part}.json")
    annotate(root, [entry(i) for i in range(21, 24)], name="image_info_test-dev2017.json")
    annotate(root, [entry(i) for i in range(21, 27)], name="image_info_test2017.json")
    return root


@pytest.mark.parametrize(
    ("recipe", "annotations", "photographs", "images"),
    [
        ("tr_v4", "instances_train2017.json", 5, 10),
        ("tr_v5", "instances_train2017.json", 5, 25),
        ("tr_v6", "instances_train2017.json", 5, 5),
        ("te_v2", "image_info_test2017.json", 6, 6),
        ("folder", "instances_train2017.json", 5, 5),
    ],
)
def test_every_recipe_reads_its_annotations_and_says_so(
    recipe, annotations, photographs, images, published, tmp_path, capsys
):
    main(["prepare", str(published), "--recipe", recipe, "--out", str(tmp_path / "s"), "--workers", "1"])
    shown = capsys.readouterr().out
    assert f"annotations: {published / 'annotations' / annotations}\n" in shown
    assert f"{photographs} photographs\n" in shown
    store = ImageStore.open(tmp_path / "s")
    assert len(store) == images
    assert store.facts["annotations"] == str(published / "annotations" / annotations)
    assert all(source.startswith("test2017/") == (recipe == "te_v2") for source in store.index["source"].to_pylist())


@pytest.mark.parametrize(
    ("recipe", "wrong"), [("te_v2", "instances_train2017.json"), ("tr_v6", "image_info_test2017.json")]
)
def test_training_and_test_images_are_not_taken_for_each_other(recipe, wrong, published, tmp_path, capsys):
    named = ["--annotations", str(published / "annotations" / wrong)]
    for source, options in ((published, named), (published / wrong.split("_")[-1].removesuffix(".json"), [])):
        with pytest.raises(SystemExit):
            main(["prepare", str(source), "--recipe", recipe, "--out", str(tmp_path / "s"), *options])
        assert f"is called after {'train' if recipe == 'te_v2' else 'test'} images" in capsys.readouterr().err


def test_test_images_are_never_drawn_from_training_annotations(tmp_path):
    put(tmp_path / "train2017", FIRST)
    annotate(tmp_path, [entry(1)])
    with pytest.raises(UserError, match=r"has only instances_train2017\.json: name a file of test images"):
        photographs_in(tmp_path, "coco", part="test")
    put(tmp_path / "val2017", "000000000002.jpg")
    val = annotate(tmp_path, [entry(2)], name="instances_val2017.json")
    assert photographs_in(tmp_path, "coco", part="test").annotations == val
    assert find_annotations(tmp_path).name == "instances_train2017.json"


def test_annotations_are_taken_of_the_images_that_are_there(tmp_path):
    put(tmp_path / "val2017", FIRST)
    annotate(tmp_path, [entry(9)])
    val = annotate(tmp_path, [entry(1)], name="instances_val2017.json")
    assert find_annotations(tmp_path) == val
    with pytest.raises(UserError, match=r"none of the 1 image .* the first is 000000000009\.jpg.*instances_val2017"):
        photographs_in(tmp_path, "coco", part="train")


def test_recipes_draw_differently(photographs):
    found = of_folder(photographs).photographs
    drawn = [choose(found, Recipe(name, draw=12), 0).photographs for name in ("tr_v6", "te_v2", "tr_v6")]
    assert drawn[0] == drawn[2] != drawn[1]
    assert [(RECIPES[name].name, RECIPES[name].part) for name in ("tr_v6", "te_v2")] == [
        ("tr_v6", "train"),
        ("te_v2", "test"),
    ]


# Where COCO's images are


def test_all_names_decide_where_images_are(tmp_path):
    names = [f"{i:012d}.jpg" for i in range(1, 71)]
    put(tmp_path / "images" / "train2017", *names[60:])
    put(tmp_path, *names[:2])
    path = annotate(tmp_path, [entry(i) for i in range(1, 71)])
    found = places(of_coco(tmp_path, path))
    assert found[60:] == [f"images/train2017/{name}" for name in names[60:]]
    assert found[:2] == names[:2]
    assert found[2] == f"images/train2017/{names[2]}"  # which is nowhere, and will be called missing


@pytest.mark.parametrize(
    ("folder", "name", "annotations"),
    [
        ("train", "1.jpg", "train/_annotations.coco.json"),  # Roboflow
        ("images/default", "sub/1.jpg", "annotations/instances_default.json"),  # CVAT
        ("train2017", "train2017/1.jpg", "annotations/instances_train2017.json"),
        ("some/where/else", "1.jpg", "annotations/instances_train2017.json"),
    ],
)
def test_other_programs_layouts(folder, name, annotations, tmp_path):
    put(tmp_path / folder, name.removeprefix("train2017/"))
    annotate(tmp_path, [entry(1, name)]).rename(tmp_path / "file.json")
    (tmp_path / annotations).parent.mkdir(exist_ok=True)
    (tmp_path / "file.json").rename(tmp_path / annotations)
    (found,) = of_coco(tmp_path, tmp_path / annotations).photographs
    assert found.place.read(tmp_path) == picture()


def test_another_splits_image_of_the_same_name_is_not_taken(tmp_path):
    put(tmp_path / "train", "1.jpg")
    put(tmp_path / "valid", "1.jpg", "2.jpg")
    path = tmp_path / "train" / "_annotations.coco.json"
    path.write_text(json.dumps({"images": [entry(1, "1.jpg"), entry(2, "2.jpg")]}))
    assert places(of_coco(tmp_path, path)) == ["train/1.jpg", "train/2.jpg"]


@pytest.mark.parametrize("names", [["x.jpg"], ["x.jpg", "y.jpg"]])
def test_a_name_of_two_files_is_refused(names, tmp_path, capsys):
    put(tmp_path / "train2017", "a/x.jpg", "b/x.jpg", "a/y.jpg")
    annotate(tmp_path, [entry(i, name) for i, name in enumerate(names)])
    command = ["prepare", str(tmp_path), "--min-side", "2", "--workers", "1", "--out"]
    for more in [["--on-bad", "stop"]] if len(names) > 1 else [[], ["--on-bad", "stop"]]:
        with pytest.raises(SystemExit):
            main([*command, str(tmp_path / "s"), *more])
        said = capsys.readouterr().err
        assert "train2017/a/x.jpg is called x.jpg, as the annotations say, and so is train2017/b/x.jpg" in said
    if len(names) > 1:
        main([*command, str(tmp_path / "s")])
        assert "train2017/a/x.jpg is called x.jpg" in capsys.readouterr().out
        assert len(ImageStore.open(tmp_path / "s")) == 1


def test_a_name_that_another_entry_or_a_link_explains_is_taken(tmp_path):
    put(tmp_path / "deep", "x.jpg", "sub/x.jpg")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/x.jpg").symlink_to(tmp_path / "deep/x.jpg")
    path = annotate(tmp_path, [entry(1, "x.jpg"), entry(2, "sub/x.jpg")])
    assert places(of_coco(tmp_path, path)) == ["deep/x.jpg", "deep/sub/x.jpg"]


def test_names_in_another_case_are_found(tmp_path):
    put(tmp_path / "train2017", "A.jpg", "b.JPG", "c.jpg", "C.jpg")
    path = annotate(tmp_path, [entry(1, "a.JPG"), entry(2, "b.jpg"), entry(3, "c.jpg"), entry(4, "c.JPG")])
    assert places(of_coco(tmp_path, path)) == [f"train2017/{name}" for name in ("A.jpg", "b.JPG", "c.jpg", "c.JPG")]


# COCO's entries


@pytest.mark.parametrize(
    ("identity", "name", "said"),
    [
        ("7", "a.jpg", "gives a.jpg the id '7', a text, not a whole number"),
        (-3, "a.jpg", "gives a.jpg the negative id -3"),
        (1.5, "a.jpg", "gives a.jpg the id 1.5"),
        (True, "a.jpg", "gives a.jpg the id True"),
        (None, "a.jpg", "gives a.jpg no id"),
        (1, "/data/a.jpg", "names /data/a.jpg, an absolute path"),
        (1, "../train2017/a.jpg", "names a file outside its folder, ../train2017/a.jpg"),
        (1, "train2017\\a.jpg", "names train2017\\a.jpg, with a backslash"),
        (
            1,
            "http://images.cocodataset.org/train2017/a.jpg",
            "names http://images.cocodataset.org/train2017/a.jpg, an address (URL)",
        ),
        (1, "", "names no file"),
        (1, ".", "names no file"),
    ],
)
def test_the_first_bad_entry_is_named_with_its_cause(identity, name, said, tmp_path):
    put(tmp_path / "train2017", "a.jpg", FIRST)
    bad = {"id": identity, "file_name": name}
    with pytest.raises(UserError) as error:
        of_coco(tmp_path, annotate(tmp_path, [bad, bad, bad]))
    assert f"image entry 0 {said}" in str(error.value)
    assert "and 2 more: mend it" in str(error.value)
    listing = of_coco(tmp_path, annotate(tmp_path, [entry(1), bad]))
    assert len(listing.photographs) == 1
    assert listing.unusable[0].source == "image entry 1"
    assert said in listing.unusable[0].reason


def test_names_that_cannot_be_printed_or_are_long_are_shown_short(tmp_path, capsys):
    put(tmp_path / "train2017", FIRST)
    names = ["a\0.jpg", "b" * 5000 + ".jpg", "c\x1b[2J.jpg", "../" + "d" * 5000]
    annotate(tmp_path, [entry(1), *(entry(i, name) for i, name in enumerate(names, start=2))])
    command = ["prepare", str(tmp_path), "--min-side", "2", "--workers", "1", "--out", str(tmp_path / "s")]
    with pytest.raises(SystemExit):
        main([*command, "--on-bad", "stop"])
    cause = "names a\\x00.jpg, with a NUL character, which no file's name can have"
    assert f"image entry 1 {cause}" in capsys.readouterr().err
    main(command)
    said = capsys.readouterr().out
    assert cause in said
    assert r"c\x1b[2J.jpg is missing" in said
    assert "bbb.jpg cannot be read (File name too long)" in said
    assert "names a file outside its folder, ../ddd" in said
    assert said.replace("\n", "").isprintable()
    assert max(map(len, said.splitlines())) < 500
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Main/train.txt").write_text("a\0b\n")
    (tmp_path / "voc/JPEGImages").mkdir()
    with pytest.raises(UserError, match=r"names a file with a NUL character, which .*, a\\x00b: unpack"):
        of_voc(tmp_path / "voc", "train")


def test_whole_numbers_may_be_written_as_floats(tmp_path):
    put(tmp_path / "train2017", "a.jpg")
    path = annotate(tmp_path, [entry(1.0, "a.jpg", width=240.0, height=float("nan"))], [box(1.0)])
    (found,) = of_coco(tmp_path, path).photographs
    assert (found.id, found.boxes, found.size) == ("000000000001", 1, None)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_annotations_in_any_unicode(encoding, tmp_path):
    put(tmp_path / "train2017", FIRST)
    path = annotate(tmp_path, [entry(1)])
    path.write_bytes(path.read_text().encode(encoding))
    assert len(of_coco(tmp_path, path).photographs) == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data.replace(b"0001.jpg", b"\xe9.jpg"), "is not UTF-8 text (from byte "),
        (gzip.compress, "is compressed by gzip: unpack it first"),
        (lambda data: data.replace(b'"id": 1', b'"id": ' + b"1" * 5000), "holds a number too long, of more than 4,300"),
        (lambda _: b"[" * 100_000, "is nested too deeply: mend it"),
        (lambda data: data[:-9], "is it cut short?"),
        (lambda data: data[:20] + "é".encode()[:1], "is it cut short?"),
    ],
    ids=["latin-1", "gzip", "number", "nested", "cut", "cut inside a character"],
)
def test_what_is_no_json_is_named_as_what_it_is(spoil, said, tmp_path):
    path = annotate(put(tmp_path, FIRST), [entry(1)])
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError) as error:
        of_coco(tmp_path, path)
    assert said in str(error.value)
    assert len(str(error.value)) < 400
    assert ("cut short" in str(error.value)) == ("cut short" in said)


@pytest.mark.parametrize("digits", [19, 400])
def test_long_numbers_are_no_ids_and_no_boxes(digits, tmp_path):
    put(tmp_path, FIRST, "2.jpg")
    long = int("9" * digits)
    boxes = [box(long), box(1, bbox=[0, 0, 5, 10**400])]
    listing = of_coco(tmp_path, annotate(tmp_path, [entry(1), entry(long, "2.jpg", width=long)], boxes))
    assert ids(listing) == ["000000000001"]
    assert listing.unusable[0].reason == f"gives 2.jpg an id of {digits} digits, a number too long"


NO_BOXES = [
    box(1, bbox=[0, 0, 0, 5]),
    box(1, bbox=[0, 0, 5, -1]),
    box(1, bbox=[float("nan")] * 4),
    box(1, bbox=[0, 0, 5, float("inf")]),
    box(1, bbox=[]),
    box(1, bbox=None),
    box(1, bbox=["0", "0", "5", "5"]),
]


def test_only_boxes_count_as_boxes(tmp_path):
    put(tmp_path / "train2017", FIRST, "000000000002.jpg")
    images = [entry(1), entry(2)]
    listing = of_coco(tmp_path, annotate(tmp_path, images, NO_BOXES + [box(2)] * 4))
    assert [one.boxes for one in listing.photographs] == [0, 4]
    assert listing.notes[1:] == ["7 of 11 annotations do not count as boxes (empty, or without four finite numbers)"]


def test_a_crowd_counts_as_pycocotools_counts(tmp_path):
    put(tmp_path / "train2017", FIRST)
    path = annotate(tmp_path, [entry(1)], [box(1, id=1, iscrowd=1), *(box(1, id=i) for i in (2, 3, 4))])
    coco = COCO(path)
    assert [one.boxes for one in of_coco(tmp_path, path).photographs] == [len(coco.getAnnIds(imgIds=[1]))] == [4]


def test_annotations_of_no_image_are_named(tmp_path, capsys):
    put(tmp_path / "train2017", FIRST)
    annotate(tmp_path, [entry(1)], [box("1")] * 10)
    with pytest.raises(SystemExit):
        main(["prepare", str(tmp_path), "--recipe", "tr_v4", "--out", str(tmp_path / "s")])
    assert "10 of 10 annotations are of no listed image: number 0 has the image_id '1'" in capsys.readouterr().err


# Tar archives


def test_archives_one_behind_another_are_read_to_the_last(tmp_path):
    parts = [shard(tmp_path / name, [f"{name}.jpg"], seed) for seed, name in enumerate("xyz")]
    (tmp_path / "all").mkdir()
    (tmp_path / "all/000.tar").write_bytes(b"".join(part.read_bytes() for part in parts))
    listing = of_tar(tmp_path / "all")
    assert ids(listing) == ["x", "y", "z"]
    assert [one.place.read(tmp_path / "all") for one in listing.photographs] == [picture(i) for i in range(3)]
    with (tmp_path / "all/000.tar").open("ab") as file:
        file.write(b"no archive" * 100)
    assert len(of_tar(tmp_path / "all").photographs) == 3
    assert "no header begins at byte 30,720" in of_tar(tmp_path / "all").unusable[0].reason


def test_damage_between_members_is_named(tmp_path):
    path = shard(tmp_path / "000.tar", ["a.jpg", "b.jpg"])
    data = bytearray(path.read_bytes())
    second = data.index(b"b.jpg\0")
    data[second : second + 512] = b"x" * 512
    path.write_bytes(data)
    listing = of_tar(tmp_path)
    assert ids(listing) == ["a"]
    assert f"no header begins at byte {second:,}" in listing.unusable[0].reason


def test_of_a_member_that_was_written_again_the_last_counts(tmp_path):
    shard(tmp_path / "000.tar", ["a.jpg", "b.jpg"])
    shard(tmp_path / "000.tar", ["./a.jpg"], 7, "a")
    listing = of_tar(tmp_path)
    assert ids(listing) == ["b", "a"]
    assert listing.photographs[1].place.read(tmp_path) == picture(7)
    assert listing.unusable[0].reason == "is a.jpg, written again further on"


def test_masks_beside_photographs_are_left_out(tmp_path):
    masks = ["000.seg.png", "001.mask.png", "001.depth.png", "002.png", "003.other.png"]
    shard(tmp_path / "000.tar", [f"00{i}.jpg" for i in range(4)] + masks + ["22.0/1.1.png", "22.0/1.2.png", "4.png"])
    listing = of_tar(tmp_path)
    assert ids(listing) == ["000", "001", "002", "003", "000.tar/22.0/1.1.png", "000.tar/22.0/1.2.png", "4"]
    assert sorted(entry.source for entry in listing.unusable) == sorted(f"000.tar/{name}" for name in masks)
    assert {entry.kind for entry in listing.unusable} == {"beside"}
    prepare_store(tmp_path / "s", tmp_path, listing, Recipe(), image_size=8, on_bad="stop")  # a mask is nothing bad
    assert len((tmp_path / "s/skipped.jsonl").read_text().splitlines()) == len(masks)


@pytest.mark.parametrize(("mode", "program"), [("w:gz", "gzip"), ("w:bz2", "bzip2"), ("w:xz", "xz")])
def test_compressed_archives_are_called_so(mode, program, tmp_path):
    for name in ("000.tar", f"001.tar.{mode[2:]}"):
        shard(tmp_path / name, ["a.jpg"], mode=mode)
    assert layout_of(tmp_path) == "tar"
    with pytest.raises(UserError, match=rf"000\.tar is compressed by {program} \(unpack it"):
        of_tar(tmp_path)
    shard(tmp_path / "002.tar", ["a.jpg"])
    reasons = [entry.reason for entry in of_tar(tmp_path).unusable]
    assert len(reasons) == 2
    assert all(f"compressed by {program}" in reason for reason in reasons)


def test_pictures_beside_shards_are_read_too(tmp_path):
    put(tmp_path, "a.jpg", "b/c.jpg")
    shard(tmp_path / "deep/000.tar", ["a.jpg", "d.jpg"])
    assert layout_of(tmp_path) == "mixed"
    listing = photographs_in(tmp_path, "mixed")
    assert ids(listing) == ["a.jpg", "b/c", "deep/000.tar/a.jpg", "d"]
    assert listing.notes[0].startswith("2 pictures lie beside archives with 2")


# Folders


def test_every_ending_of_a_jpeg_is_read(tmp_path):
    names = ["a.jpg", "b.JPG", "c.jpeg", "d.JPEG", "e.jfif", "f.JFIF", "g.jpe"]
    put(tmp_path / "folder", *names)
    put(tmp_path / "voc/JPEGImages", *names, "h.png")
    shard(tmp_path / "tar/000.tar", names)
    assert ids(of_folder(tmp_path / "folder")) == list("abcdefg")
    assert ids(of_voc(tmp_path / "voc")) == list("abcdefgh")
    assert ids(of_tar(tmp_path / "tar")) == list("abcdefg")


def test_formats_that_are_not_read_are_counted_and_named(tmp_path, capsys):
    put(tmp_path / "p", "a.jpg", size=(70, 70))
    for name in ("IMG_1.HEIC", "IMG_2.heic", "x.JXL", "notes.txt"):
        (tmp_path / "p" / name).write_bytes(b"?" * 100)
    main(["prepare", str(tmp_path / "p"), "--out", str(tmp_path / "s"), "--workers", "1"])
    shown = capsys.readouterr().out
    assert "1 photograph\n  and 3 entries or files that cannot be used" in shown
    assert "IMG_1.HEIC is a .heic file, which is not read (convert it to JPEG or PNG) (and 1 more)" in shown
    assert "x.JXL is a .jxl file" in shown
    assert f"{tmp_path / 's'}: 1 image, 1 of each photograph" in shown
    assert "not looked at, for their endings: 1 file (notes.txt)" in shown
    (tmp_path / "p/a.jpg").unlink()
    with pytest.raises(UserError, match=r"no photographs that can be read, IMG_1\.HEIC .*, and 2 more"):
        of_folder(tmp_path / "p")


def test_what_is_beside_archives_or_listed_images_is_named(tmp_path):
    shard(tmp_path / "t/000.tar", ["a.jpg"])
    (tmp_path / "t/001.tar").symlink_to("gone.tar")
    os.mkfifo(tmp_path / "t/002.tar")
    (tmp_path / "t/no-ending").touch()
    listing = of_tar(tmp_path / "t")
    assert [(one.source, one.reason) for one in listing.unusable] == [
        (name, "cannot be read (it is missing, or no file)") for name in ("001.tar", "002.tar")
    ]
    assert listing.notes == ["not looked at, for their endings: 1 file (no-ending)"]
    put(tmp_path / "c/train2017", FIRST, "2.jpg", ".3.jpg")
    annotations = tmp_path / "c/instances.json"
    annotations.write_text(json.dumps({"images": [{"id": 1, "file_name": FIRST}]}))
    assert of_coco(tmp_path / "c", annotations).notes[1:] == [
        "left out, as no usable entry names them: 1 picture (train2017/2.jpg)"
    ]


def test_what_systems_leave_among_photographs_is_no_photograph(tmp_path):
    put(tmp_path, "a.jpg", "sub/b.jpg")
    for name in ("._a.jpg", "__MACOSX/a.jpg", "sub/.thumbnails/b.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", ".x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    assert places(of_folder(tmp_path)) == ["a.jpg", "sub/b.jpg"]
    prepare_store(tmp_path / "s", tmp_path, of_folder(tmp_path), Recipe(), image_size=8, on_bad="stop")
    voc = put(tmp_path / "voc", "JPEGImages/a.jpg")
    (voc / "JPEGImages/._a.jpg").write_bytes(b"\0\5\x16\7")
    assert ids(of_voc(voc)) == ["a"]
    shard(tmp_path / "t/000.tar", ["a.jpg", "./._a.jpg", "__MACOSX/._a.jpg"])
    (tmp_path / "t/._000.tar").write_bytes(b"\0\5\x16\7" * 100)
    assert (ids(of_tar(tmp_path / "t")), of_tar(tmp_path / "t").unusable) == (["a"], [])


def test_stores_and_runs_below_the_source_are_not_entered(photographs, tmp_path):
    put(tmp_path, "a.jpg", "deep/b.jpg")
    prepare_store(tmp_path / "deep/store", tmp_path, of_folder(tmp_path), Recipe(), image_size=8)
    put(tmp_path / "deep/store", "neighbours.png")
    put(tmp_path / "run", "curves.png", "sheets/000003.png")
    (tmp_path / "run/run.json").write_text("{}")
    (tmp_path / "run/config.json").write_text("{}")
    listing = of_folder(tmp_path)
    assert places(listing) == ["a.jpg", "deep/b.jpg"]
    assert f"{tmp_path / 'deep/store'}, {tmp_path / 'run'}" in listing.notes[0]
    with pytest.raises(UserError, match="is an image store or a run already"):
        photographs_in(tmp_path / "run", "folder")
    (tmp_path / "deep/b.jpg").unlink()
    with pytest.raises(UserError, match=r"can be read; not entered, as made by this program: .*deep/store: "):
        of_folder(tmp_path / "deep")


def test_links_to_folders_are_followed_once(tmp_path):
    put(tmp_path / "elsewhere", "1.jpg", "deep/2.jpg")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "elsewhere")
    root = put(tmp_path / "root", "own.jpg")
    (root / "a").symlink_to(tmp_path / "elsewhere")
    (root / "b").symlink_to(tmp_path / "elsewhere/deep")
    (root / "self").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    assert places(of_folder(root)) == ["a/1.jpg", "a/deep/2.jpg", "own.jpg"]
    (tmp_path / "link").symlink_to(root)
    assert len(of_folder(tmp_path / "link").photographs) == 3


def test_ids_that_would_collide(tmp_path):
    put(tmp_path, "a.jpg", "a.jpeg", "a.jpg.jpg", "b.jpg", "c.jpg.png", "c.JPG")
    assert sorted(ids(of_folder(tmp_path))) == ["a.jpeg", "a.jpg", "a.jpg.jpg", "b", "c", "c.jpg"]
    prepare_store(tmp_path / "s", tmp_path, of_folder(tmp_path), Recipe(), image_size=8)
    assert len(ImageStore.open(tmp_path / "s")) == 6


def test_names_that_are_not_utf_8(tmp_path):
    put(tmp_path, "a.jpg")
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(picture())
    listing = photographs_in(tmp_path, "folder")
    assert (ids(listing), listing.unusable[0].source) == (["a"], "caf\\udce9.jpg")


# PASCAL VOC


def test_sizes_that_annotations_do_not_give_are_read_from_the_photograph(tmp_path):
    for name, size in (("a", ("0", "0")), ("b", ("240.0", "230.0"))):
        put(tmp_path, f"JPEGImages/{name}.jpg")
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        text = f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size></annotation>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text("\ufeff" + text)
    listing = of_voc(tmp_path)
    assert [one.size for one in listing.photographs] == [None, (240, 230)]
    assert listing.unusable == []
    assert read_annotation(tmp_path, "b").size == (240, 230)


def test_a_development_kit_of_several_years(tmp_path):
    put(
        tmp_path, "VOC2007/JPEGImages/000001.jpg", "VOC2012/JPEGImages/2007_000027.jpg", "VOC2012/JPEGImages/000001.jpg"
    )
    put(tmp_path / "VOC2012/SegmentationClass", "2007_000027.png", format="PNG")
    assert layout_of(tmp_path) == "voc"
    assert ids(photographs_in(tmp_path, "voc")) == [
        "VOC2007/JPEGImages/000001.jpg",
        "VOC2012/JPEGImages/000001.jpg",
        "2007_000027",
    ]
