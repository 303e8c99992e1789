"""Every layout that photographs come in, and what is wrong with real ones."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorbms_fast.cli import main
from lorbms_fast.dataloader.decoders import decode_rgb, read_rgb
from lorbms_fast.dataloader.image_file import ByteRange
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import layout_of, photographs_in
from lorbms_fast.dataloader.sources.coco import of_coco
from lorbms_fast.dataloader.sources.stl10 import read_folds, read_images, read_labels
from lorbms_fast.dataloader.sources.tar import of_tar
from lorbms_fast.dataloader.sources.voc import VocObject, of_voc, read_annotation, read_split
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.photos.stl10 import write_stl10


def stored(out: Path, root: Path, layout: str) -> ImageStore:
    prepare_store(out, root, photographs_in(root, layout), Recipe(), image_size=32, decoder="pillow")
    return ImageStore.open(out)


# Tar shards


@pytest.fixture
def tars(photographs: Path, tmp_path: Path) -> Path:
    """The 24 photographs in three shards, a caption beside each."""
    root = tmp_path / "tars"
    root.mkdir()
    files = sorted(photographs.iterdir())
    for shard in range(3):
        with tarfile.open(root / f"train-{shard:03d}.tar", "w") as archive:
            for path in files[shard::3]:
                archive.add(path, arcname=f"./{path.stem}.image.jpg")
                caption = tarfile.TarInfo(f"./{path.stem}.txt")
                caption.size = 3
                archive.addfile(caption, io.BytesIO(b"abc"))
    return root


def test_tar_shards_give_what_the_folder_gives(tars, photographs, tmp_path):
    assert layout_of(tars) == "tar"
    packed, plain = stored(tmp_path / "a", tars, "tar"), stored(tmp_path / "b", photographs, "folder")
    assert sorted(packed.ids) == plain.ids
    order = [packed.ids.index(name) for name in plain.ids]
    assert np.array_equal(packed.images[np.array(order)], plain.images[:])
    assert np.array_equal(packed.square(order[5], 48), plain.square(5, 48))


def test_members_of_one_name_are_told_apart_and_links_are_left(photographs, tmp_path):
    for shard in "ab":
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            archive.add(next(photographs.iterdir()), arcname="x/1.jpg")
            link = tarfile.TarInfo("2.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    listing = of_tar(tmp_path)
    assert [photograph.id for photograph in listing.photographs] == ["a.tar/x/1.jpg", "b.tar/x/1.jpg"]
    assert [(entry.source, entry.kind) for entry in listing.unusable] == [(f"{x}.tar/2.jpg", "beside") for x in "ab"]


def sparse(name: str, archived: int, real: int) -> bytes:
    """Header of a sparse file: of so many bytes in the archive, and of as many with its holes."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT)[:512])
    header[156:157], header[124:136] = tarfile.GNUTYPE_SPARSE, archived.to_bytes(12, "big", signed=True)
    header[124] |= 0x80
    header[386:410], header[483:495] = b"%011o\0%011o\0" % (0, max(archived, 0)), b"%011o\0" % real
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_sparse_members_are_told_and_none_leads_back(photographs, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(photographs / "photo00.jpg", arcname="0.jpg")
    plain = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(sparse("1.jpg", 512, 10**7) + bytes(512) + plain)
    listing = of_tar(tmp_path)
    assert [photograph.id for photograph in listing.photographs] == ["0"]
    assert [(one.source, one.kind) for one in listing.unusable] == [("a.tar/1.jpg", "bad")]
    (tmp_path / "a.tar").write_bytes(tarfile.TarInfo("2").tobuf()[:512] + sparse("1.jpg", -512, 5) + plain)
    with pytest.raises(UserError, match="is sparse in its archive"):
        of_tar(tmp_path)


def test_a_tar_that_is_cut_short_gives_what_is_before(tars, tmp_path):
    path = tars / "train-001.tar"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    listing = of_tar(tars)
    assert 16 < len(listing.photographs) < 24
    assert [(entry.source, entry.kind) for entry in listing.unusable] == [("train-001.tar", "bad")]
    counts, skipped = prepare_store(tmp_path / "s", tars, listing, Recipe(), image_size=32)
    assert counts.unusable == 1
    assert counts.images + counts.bad == len(listing.photographs)
    assert skipped[0].source == "train-001.tar"


@pytest.mark.parametrize("content", [b"", b"noise" * 1000])
def test_what_is_no_tar_is_named(content, tmp_path):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match=r"no pictures are in .*'s 1 archive, a\.tar is damaged"):
        of_tar(tmp_path)


# STL-10


@pytest.fixture(scope="module")
def stl10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stl10") / "stl10_binary"
    write_stl10(folder, 50, 20, seed=0)
    return folder


def test_stl10_is_read_as_it_was_written(stl10, tmp_path):
    assert layout_of(stl10) == "stl10"
    images, labels, folds = read_images(stl10, "train"), read_labels(stl10, "train"), read_folds(stl10, 50)
    assert images.shape == (50, 96, 96, 3)
    assert np.bincount(labels).tolist() == [5] * 10
    assert [len(fold) for fold in folds] == [10] * 10
    raw = np.fromfile(stl10 / "train_X.bin", np.uint8)
    assert images[7, 20, 30, 2] == raw[7 * 27648 + 2 * 9216 + 30 * 96 + 20]  # column by column
    store = stored(tmp_path / "s", stl10, "stl10")
    assert (len(store), store.ids[0], store.ids[-1]) == (70, "train_000000", "test_000019")
    assert np.array_equal(store.square(7, 96), images[7])
    assert len(photographs_in(stl10, "stl10", split="test").photographs) == 20


@pytest.mark.parametrize(("name", "length"), [("train_X.bin", 100), ("train_X.bin", 0), ("train_y.bin", None)])
def test_damaged_stl10_is_named(name, length, stl10, tmp_path):
    for path in stl10.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes(b"\x63" * 50 if length is None else (tmp_path / name).read_bytes()[:length])
    with pytest.raises(UserError, match=name):
        read_labels(tmp_path, "train") if length is None else read_images(tmp_path, "train")


def test_a_split_that_stl10_has_not_is_told_with_those_it_has(stl10):
    with pytest.raises(UserError, match=r"no training_X\.bin: only test_X\.bin, train_X\.bin: choose another --split"):
        photographs_in(stl10, "stl10", split="training")


# PASCAL VOC

VOC = """<annotation><filename>{name}.jpg</filename><size><width>100</width><height>80</height><depth>3</depth></size>
{objects}</annotation>"""
OBJECT = """<object><name>dog</name><difficult>{difficult}</difficult>
<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30.5</xmax><ymax>40</ymax></bndbox></object>"""


@pytest.fixture
def voc(photographs: Path, tmp_path: Path) -> Path:
    root = tmp_path / "VOC2007"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for i, path in enumerate(sorted(photographs.iterdir())[:4]):
        (root / "JPEGImages" / f"{i:06d}.jpg").write_bytes(path.read_bytes())
        if i != 3:
            objects = "".join(OBJECT.format(difficult=k % 2) for k in range(i))
            (root / "Annotations" / f"{i:06d}.xml").write_text(VOC.format(name=f"{i:06d}", objects=objects))
    (root / "ImageSets/Main/train.txt").write_text("000000\n000002\n")
    (root / "ImageSets/Main/dog_train.txt").write_text("000000 -1\n000002  1\n")
    return root


def test_voc(voc, tmp_path):
    assert layout_of(voc) == "voc"
    listing = of_voc(voc)
    assert [(one.id, one.boxes, one.size) for one in listing.photographs] == [
        ("000000", 0, (100, 80)),
        ("000001", 1, (100, 80)),
        ("000002", 2, (100, 80)),
        ("000003", 0, None),
    ]
    assert [one.id for one in of_voc(voc, "train").photographs] == ["000000", "000002"]
    assert read_split(voc, "dog_train") == ["000002"]
    easy, difficult = read_annotation(voc, "000002").objects
    assert easy == VocObject("dog", False)
    assert difficult.difficult
    assert len(stored(tmp_path / "s", voc, "voc")) == 4
    with pytest.raises(UserError, match=r"val\.txt is missing: choose one of train"):
        of_voc(voc, "val")


@pytest.mark.parametrize("content", ["", "<annotation>", "<annotation></annotation>", "no xml"])
def test_bad_voc_annotations_are_named_and_the_rest_is_kept(content, voc):
    (voc / "Annotations/000001.xml").write_text(content)
    listing = of_voc(voc)
    assert [one.id for one in listing.photographs] == ["000000", "000002", "000003"]
    assert listing.unusable[0].source == "Annotations/000001.xml"
    assert listing.unusable[0].reason.startswith("is no annotation of VOC")


# COCO


def coco(root: Path, images: list, annotations: list) -> Path:
    (root / "annotations").mkdir(parents=True)
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": []}))
    Image.new("RGB", (260, 210)).save(root / "a.jpg")
    Image.new("RGB", (260, 210)).save(root / "b.jpg")
    return path


def test_duplicate_and_absent_ids(tmp_path, capsys):
    a, b = {"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}
    spoilt = [{"file_name": "b.jpg"}, {"id": 7, "file_name": "b.jpg"}, {"id": "x", "file_name": "b.jpg"}]
    spoilt += ["b.jpg", {"id": 9}, {"id": 9, "file_name": "../b.jpg"}, {"id": 9, "file_name": "/etc/passwd"}]
    boxes = [{"image_id": 7, "bbox": [0, 0, 1, 1]}, {"image_id": 7, "bbox": [0, 0, 1, 1]}]
    path = coco(tmp_path, [a, b, a, *spoilt], [*boxes, {"id": 3}, "x", {"image_id": 99}])
    listing = of_coco(tmp_path, path)
    assert [(one.id, one.boxes) for one in listing.photographs] == [("000000000007", 2), ("000000000008", 0)]
    assert [entry.source for entry in listing.unusable] == [f"image entry {i}" for i in range(3, 10)]
    assert "gives b.jpg the id 7 of a.jpg" in listing.unusable[1].reason
    assert capsys.readouterr().out == ""  # pycocotools prints
    main(["prepare", str(tmp_path), "--recipe", "tr_v6", "--out", str(tmp_path / "s"), "--workers", "1"])
    shown = capsys.readouterr().out
    assert "2 photographs\n  and 7 entries or files that cannot be used" in shown
    with pytest.raises(SystemExit):
        main(["prepare", str(tmp_path), "--recipe", "tr_v6", "--out", str(tmp_path / "t"), "--on-bad", "stop"])
    assert "image entry 3 gives b.jpg no id" in capsys.readouterr().err


def test_a_file_of_several_ids_is_told(tmp_path):
    path = coco(tmp_path, [{"id": i, "file_name": "a.jpg"} for i in (1, 2)] + [{"id": 3, "file_name": "b.jpg"}], [])
    assert of_coco(tmp_path, path).notes[1:] == ["1 file named under several ids, an image for each: a.jpg"]


def test_sizes_that_annotations_tell_are_used_before_drawing(tmp_path, capsys):
    images = [{"id": i, "file_name": "a.jpg", "width": 260, "height": 150 if i % 2 else 210} for i in range(8)]
    coco(tmp_path, images, [])
    main(
        ["prepare", str(tmp_path), "--recipe", "tr_v6", "--limit", "4", "--out", str(tmp_path / "s"), "--workers", "1"]
    )
    shown = capsys.readouterr().out
    assert "8 photographs\n4 of them annotated with both sides of 200 px or more\n4 of them drawn" in shown
    assert len(ImageStore.open(tmp_path / "s")) == 4


def test_image_info_without_boxes(tmp_path):
    path = coco(tmp_path, [], [])
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "a.jpg", "width": 0, "height": None}]}))
    (photograph,) = of_coco(tmp_path, path).photographs
    assert (photograph.boxes, photograph.size) == (0, None)


# All of them


def test_options_that_do_not_apply_are_refused(photographs, voc):
    with pytest.raises(UserError, match="belongs to COCO"):
        photographs_in(photographs, "folder", annotations=Path("a.json"))
    with pytest.raises(UserError, match="belongs to stl10 and voc"):
        photographs_in(photographs, "folder", split="train")
    for layout in ("coco", "tar", "stl10", "voc"):
        with pytest.raises(UserError):
            photographs_in(photographs, layout)


def test_a_part_of_a_file_is_read_and_no_more(photographs, tmp_path):
    data = (photographs / "photo00.jpg").read_bytes()
    (tmp_path / "many").write_bytes(b"before" + data + b"after")
    found = decode_rgb(ByteRange("many", 6, len(data)).read(tmp_path), "many")
    assert np.array_equal(found, read_rgb(photographs / "photo00.jpg"))
    with pytest.raises(UserError, match="many ends 1 bytes before the photograph at byte 12 does"):
        ByteRange("many", 12, len(data)).read(tmp_path)
