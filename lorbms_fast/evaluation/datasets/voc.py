"""PASCAL VOC's images and the classes they show."""

from pathlib import Path

import numpy as np

from lorbms_fast.dataloader.decoders import read_rgb
from lorbms_fast.dataloader.sources import voc
from lorbms_fast.dataloader.sources.folder import tree_below
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.labelled import Decoded, Labelled

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def read_voc(folder: Path, split: str = "trainval") -> Labelled:
    """Read which of the twenty classes each image of a split shows; objects marked difficult do not count.

    The folder has `Annotations`, `ImageSets`, whose `Main` has the split's file, and `JPEGImages`, such as VOC2007, or
    holds such folders, of which the first is read. Raises UserError if a file is missing or malformed, or an object is
    of none of the classes.
    """
    root = folder / voc.voc_folders(folder)[0]
    images = voc.read_split(root, split)
    if not images:
        raise UserError(f"{root / voc.SETS / split}.txt names no images: unpack it again")
    labels = np.zeros((len(images), len(CLASSES)), np.float32)
    for row, image in zip(labels, images, strict=True):
        row[_classes(root, image)] = 1
    pictures = voc.pictures_in(tree_below(root / voc.IMAGES))
    paths = [root / voc.IMAGES / pictures.get(image, [f"{image}.jpg"])[0] for image in images]
    source = f"PASCAL VOC format, {root.name} {split}, {len(images)} images"
    return Labelled(Decoded(read_rgb, paths), labels, CLASSES, source)


def _classes(root: Path, image: str) -> list[int]:
    names = [one.name for one in voc.read_annotation(root, image).objects if not one.difficult]
    unknown = sorted(set(names) - set(CLASSES))
    if unknown:
        raise UserError(
            f"{root / voc.ANNOTATIONS / image}.xml names {', '.join(unknown)}, none of VOC's classes: unpack it again"
        )
    return [CLASSES.index(name) for name in names]
