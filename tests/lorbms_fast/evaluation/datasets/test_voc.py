"""PASCAL VOC's XML and ImageNet's folders are read as they are published."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.labelled import read_class_folders
from lorbms_fast.evaluation.datasets.voc import CLASSES, read_voc

SIZE = "<size><width>20</width><height>16</height><depth>3</depth></size>"
OBJECT = """<object><name>{}</name><difficult>{}</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"""


def write_voc(root: Path, images: dict[str, list[tuple[str, int]]]) -> Path:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Main/trainval.txt").write_text("".join(f"{name}\n" for name in images))
    for i, (name, objects) in enumerate(images.items()):
        Image.new("RGB", (20 + i, 16), (i * 40, 0, 0)).save(root / "JPEGImages" / f"{name}.jpg")
        text = "".join(OBJECT.format(*one) for one in objects)
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{SIZE}{text}</annotation>")
    return root


def test_voc_labels(tmp_path: Path):
    write_voc(tmp_path / "VOCdevkit/VOC2007", {"000005": [("dog", 0), ("dog", 0), ("person", 0)], "7": [("cat", 1)]})
    images = tmp_path / "VOCdevkit/VOC2007/JPEGImages"
    (images / "7.jpg").rename(images / "7.JPEG")
    data = read_voc(tmp_path)
    assert [CLASSES[i] for i in np.flatnonzero(data.labels[0])] == ["dog", "person"]
    assert not data.labels[1].any(), "difficult objects do not count"
    assert data.labels.dtype == np.float32
    assert data.pictures[1].shape == (16, 21, 3)
    assert data.classes == CLASSES


def test_voc_mistakes(tmp_path: Path):
    with pytest.raises(UserError, match="has no folder JPEGImages: name the folder VOC2007"):
        read_voc(tmp_path)
    root = write_voc(tmp_path / "VOC2007", {"1": [("dragon", 0)]})
    with pytest.raises(UserError, match=r"1\.xml names dragon, none of VOC's classes"):
        read_voc(root)
    (root / "Annotations/1.xml").write_text("<annotation><object>")
    with pytest.raises(UserError, match=r"1\.xml is no annotation of VOC"):
        read_voc(root)
    with pytest.raises(UserError, match=r"val\.txt is missing"):
        read_voc(root, "val")


def test_class_folders(tmp_path: Path):
    for i, name in enumerate(("n02", "n01")):
        (tmp_path / name).mkdir()
        for k in range(i + 1):
            Image.new("RGB", (9, 9), (10 * i, k, 0)).save(tmp_path / name / f"{k}.JPEG")
    (tmp_path / "empty").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    for name in ("n01/._0.JPEG", "__MACOSX/0.JPEG"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    data = read_class_folders(tmp_path)
    assert data.classes == ("n01", "n02")
    np.testing.assert_array_equal(data.labels, [0, 0, 1])
    assert data.pictures[2][0, 0, 0] < 5
    with pytest.raises(UserError, match="0 folders with pictures"):
        read_class_folders(tmp_path / "empty")
