"""STL-10 (Coates, Lee and Ng, AISTATS 2011) as it is published: binary files, column by column."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.labelled import Labelled

SIDE = 96
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
    return Stl10(train, test, _folds(folder / FOLDS, len(train)))


def _split(folder: Path, name: str, classes: tuple[str, ...], source: str) -> Labelled:
    images, labels = folder / f"{name}_X.bin", folder / f"{name}_y.bin"
    for path in (images, labels):
        if not path.is_file():
            raise UserError(f"{path} is missing: name the folder stl10_binary of STL-10, unpacked")
    numbers = np.fromfile(labels, np.uint8).astype(np.int64)
    expected = len(numbers) * 3 * SIDE * SIDE
    if not len(numbers) or images.stat().st_size != expected:
        raise UserError(
            f"{images} has {images.stat().st_size:,} bytes, {len(numbers)} labels need {expected:,}: unpack it again"
        )
    if numbers.min() < 1 or numbers.max() > len(classes):
        raise UserError(f"{labels} has labels {numbers.min()} to {numbers.max()} for {len(classes)} classes")
    planes = np.memmap(images, np.uint8, "r", shape=(len(numbers), 3, SIDE, SIDE))
    return Labelled(planes.transpose(0, 3, 2, 1), numbers - 1, classes, source)


def _folds(path: Path, count: int) -> NDArray[np.int64]:
    try:
        folds = np.array([line.split() for line in _text(path).splitlines() if line.strip()], np.int64)
    except ValueError as error:
        raise UserError(f"{path} does not hold equally long lines of numbers ({error}): unpack it again") from error
    if folds.ndim != 2 or folds.min() < 0 or folds.max() >= count:
        raise UserError(f"{path} does not hold folds of {count} pictures: it belongs to another set")
    return folds


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): name the folder stl10_binary of STL-10") from error
