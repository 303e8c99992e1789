"""PASCAL VOC as it is published: XML annotations beside JPEG files."""

from pathlib import Path

import numpy as np

from lorbms_fast.dataloader.photograph import is_inside
from lorbms_fast.dataloader.sources import voc
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.labelled import Files, Labelled

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def read_voc(folder: Path, split: str = "trainval") -> Labelled:
    """Which of the twenty classes each image of a split shows; objects marked difficult do not count.

    Args:
        folder: with `Annotations`, `ImageSets` and `JPEGImages`, such as VOC2007, or one that holds one such folder.
        split: a file of `ImageSets/Main`.

    Raises:
        UserError: a file is missing or malformed, or an object is of none of the classes.
    """
    root = _root(folder)
    images = voc.read_split(root, split)
    names = root / voc.SETS / f"{split}.txt"
    if not images:
        raise UserError(f"{names} names no images: unpack it again")
    if outside := [image for image in images if not is_inside(image)]:
        raise UserError(f"{names} names a file outside {voc.IMAGES}, {outside[0]}: unpack it again")
    labels = np.zeros((len(images), len(CLASSES)), np.float32)
    for row, image in zip(labels, images, strict=True):
        row[_classes(root / voc.ANNOTATIONS / f"{image}.xml")] = 1
    paths = [root / voc.IMAGES / f"{image}.jpg" for image in images]
    return Labelled(Files(paths), labels, CLASSES, f"PASCAL VOC format, {root.name} {split}, {len(images)} images")


def _root(folder: Path) -> Path:
    candidates = [folder, *sorted(folder.glob("VOC*/")), *sorted(folder.glob("VOCdevkit/VOC*/"))]
    for candidate in candidates:
        if (candidate / voc.ANNOTATIONS).is_dir():
            return candidate
    raise UserError(f"{folder} holds no PASCAL VOC: a folder with Annotations, ImageSets and JPEGImages is looked for")


def _classes(annotation: Path) -> list[int]:
    try:
        objects = voc.parse(annotation).findall("object")
        return [CLASSES.index(one.findtext("name", "").strip()) for one in objects if one.findtext("difficult") != "1"]
    except ValueError as error:
        raise UserError(f"{annotation} is not PASCAL VOC's ({error}): unpack it again") from error
