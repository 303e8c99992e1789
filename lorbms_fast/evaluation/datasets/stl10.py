"""STL-10 (Coates, Lee and Ng, AISTATS 2011) as it is published: binary files, column by column."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.sources import stl10
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.labelled import Labelled

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
NAMES, FOLDS = "class_names.txt", "fold_indices.txt"


@dataclass(frozen=True)
class Stl10:
    """The labelled parts of STL-10 and its predefined folds."""

    train: Labelled
    test: Labelled
    folds: NDArray[np.int64]
    """(10, n): each row indices of the training set."""


def read_stl10(folder: Path) -> Stl10:
    """Read `stl10_binary`, or a folder that holds it; pixels stay on disk until they are asked for.

    Raises:
        UserError: a file is missing, cut short, or speaks of pictures or classes that are not there.
    """
    if (folder / "stl10_binary").is_dir():
        folder = folder / "stl10_binary"
    classes = tuple(_text(folder / NAMES).split())
    source = "STL-10" if classes == CLASSES else f"not STL-10: other pictures in its format ({', '.join(classes)})"
    train, test = (_split(folder, name, classes, source) for name in ("train", "test"))
    return Stl10(train, test, _folds(folder, len(train)))


def _split(folder: Path, name: str, classes: tuple[str, ...], source: str) -> Labelled:
    pictures, labels = stl10.read_images(folder, name), stl10.read_labels(folder, name)
    if len(pictures) != len(labels):
        path = stl10.images_file(folder, name)
        raise UserError(f"{path} has {len(pictures)} pictures for {len(labels)} labels: unpack it again")
    if labels.max() >= len(classes):
        raise UserError(f"{folder} has labels up to {labels.max() + 1} for {len(classes)} classes: unpack it again")
    return Labelled(pictures, labels, classes, source)


def _folds(folder: Path, count: int) -> NDArray[np.int64]:
    path = folder / FOLDS
    folds = stl10.read_folds(folder)
    if len({len(fold) for fold in folds}) != 1:
        raise UserError(f"{path} does not hold equally long lines of numbers: unpack it again")
    indices = np.stack(folds)
    if indices.min() < 0 or indices.max() >= count:
        raise UserError(f"{path} does not hold folds of {count} pictures: it belongs to another set")
    return indices


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): name the folder stl10_binary of STL-10") from error
