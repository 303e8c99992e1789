"""STL-10 (Coates, Lee and Ng, AISTATS 2011) with its labels and folds."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.sources.stl10 import CLASSES, read_class_names, read_folds, read_images, read_labels
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.labelled import Labelled

SIZES = {"train": 5000, "test": 8000}
"""Number of pictures in each labelled part."""


@dataclass(frozen=True)
class Stl10:
    """The labelled parts of STL-10 and its predefined folds."""

    train: Labelled
    test: Labelled
    folds: NDArray[np.int64]
    """(10, n): each row indices of the training set."""


def read_stl10(folder: Path) -> Stl10:
    """Map `stl10_binary`, or the one in a folder; UserError where a file is missing, cut short, or of others."""
    if (folder / "stl10_binary").is_dir():
        folder = folder / "stl10_binary"
    classes = read_class_names(folder)
    train, test = (_split(folder, name, classes) for name in ("train", "test"))
    return Stl10(train, test, read_folds(folder, len(train)))


def _split(folder: Path, name: str, classes: tuple[str, ...]) -> Labelled:
    pictures, labels = read_images(folder, name), read_labels(folder, name, len(classes))
    if len(pictures) != len(labels):
        raise UserError(f"{folder} has {len(pictures)} pictures and {len(labels)} labels of {name}: unpack it again")
    return Labelled(pictures, labels, classes, _source(name, len(pictures), classes))


def _source(name: str, count: int, classes: tuple[str, ...]) -> str:
    others = "not STL-10: other pictures in its format"
    if classes != CLASSES:
        return f"{others} ({', '.join(classes)})"
    return "STL-10" if count == SIZES[name] else f"{others} ({count:,} of {name}, not {SIZES[name]:,})"
