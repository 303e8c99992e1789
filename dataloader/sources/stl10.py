"""STL-10 in its binary layout (Coates, Lee and Ng, AISTATS 2011)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.decoders.planes import BYTES, SIDE, SUFFIX, planes
from lorbms_fast.dataloader.image_file import ByteRange, Photograph
from lorbms_fast.dataloader.sources.listing import Listing
from lorbms_fast.errors import UserError

CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
SPLITS = ("train", "test", "unlabeled")
MOST = 1_000_000
"""Max. number of pictures in a file: STL-10 has 100,000, and a sparse file may claim any length."""


def of_stl10(root: Path, split: str | None = None) -> Listing:
    """List pictures of `{train,test,unlabeled}_X.bin`, or of one, ids as `train_000000`; UserError without any."""
    splits = [name for name in ([split] if split else SPLITS) if images_file(root, name).is_file()]
    if not splits:
        there = ", ".join(path.name for path in sorted(root.glob("*_X.bin")))
        remedy = f"only {there}: choose another --split" if split and there else "name the folder stl10_binary"
        raise UserError(f"{root} has no {split or '{train,test,unlabeled}'}_X.bin: {remedy}")
    return Listing(
        [
            Photograph(f"{name}_{i:06d}", ByteRange(images_file(root, name).name, i * BYTES, BYTES), size=(SIDE, SIDE))
            for name in splits
            for i in range(_count(images_file(root, name)))
        ]
    )


def images_file(root: Path, split: str) -> Path:
    """The file of a split's pictures."""
    return root / f"{split}_X{SUFFIX}"


def read_images(root: Path, split: str) -> NDArray[np.uint8]:
    """Map a split's pictures, uint8 (N, 96, 96, 3); UserError where the file is missing, or cut inside a picture."""
    path = images_file(root, split)
    return planes(np.memmap(path, np.uint8, "r", shape=(_count(path), BYTES)))


def read_labels(root: Path, split: str, classes: int = 10) -> NDArray[np.int64]:
    """Read the classes of a split's pictures, (N,), from 0; UserError without the file, or outside 1 to `classes`."""
    path = root / f"{split}_y.bin"
    if (size := _size(path)) > MOST:
        raise UserError(f"{path} has {size:,} bytes, more than {MOST:,} labels: is it the right file?")
    numbers = np.fromfile(path, np.uint8).astype(np.int64)
    low, high = numbers.min(initial=1), numbers.max(initial=1)
    if low < 1 or high > classes:
        raise UserError(f"{path} has labels {low} to {high} for {classes} classes: is it the right file?")
    return numbers - 1


def read_class_names(root: Path) -> tuple[str, ...]:
    """Read the classes' names, in the order of their numbers; UserError where the file is missing or no text."""
    return tuple(_text(root / "class_names.txt").split())


def read_folds(root: Path, count: int) -> NDArray[np.int64]:
    """Read the folds, (folds, n) indices into a training set of `count` pictures; UserError where they are not that."""
    path = root / "fold_indices.txt"
    try:
        folds = np.array([line.split() for line in _text(path).splitlines() if line.strip()], np.int64)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path} does not hold equally long lines of numbers ({error}): unpack it again") from error
    if folds.ndim != 2 or not folds.size or folds.min() < 0 or folds.max() >= count:
        raise UserError(f"{path} does not hold folds of {count} pictures: it belongs to another set")
    return folds


def _count(path: Path) -> int:
    """Number of pictures in a file."""
    size = _size(path)
    if size == 0 or size % BYTES:
        raise UserError(f"{path} has {size:,} bytes, not a multiple of {BYTES:,}: is it cut short?")
    if size > MOST * BYTES:
        raise UserError(f"{path} has {size:,} bytes, more than {MOST:,} pictures: is it the right file?")
    return size // BYTES


def _size(path: Path) -> int:
    if not path.is_file():
        raise UserError(f"{path} is missing: name the folder stl10_binary")
    return path.stat().st_size


def _text(path: Path) -> str:
    _size(path)
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): unpack it again") from error
