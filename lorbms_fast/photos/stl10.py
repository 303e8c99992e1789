"""Labelled pictures of single objects in the binary layout of STL-10 (Coates, Lee and Ng, AISTATS 2011)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from lorbms_fast.errors import UserError
from lorbms_fast.parallel import ordered_map
from lorbms_fast.photos import shipped
from lorbms_fast.photos.collage import background, cutout, object_size, paste
from lorbms_fast.photos.draws import Stream, generator
from lorbms_fast.photos.shipped import CATEGORIES, Photo

SIDE = 96
FOLDS = 10

_DRAWN_SIDE = 2 * SIDE  # pictures are composed at twice the side and averaged down, as the real ones were
_TEST_SHARE = 0.4  # of a category's objects
_FOLD_SHARE = 5  # a fold is a fifth of the training set, as in STL-10 (1000 of 5000)


@dataclass(frozen=True)
class Split:
    """The cut-outs of one category that appear in training and those that appear in testing only."""

    train: tuple[Photo, ...]
    test: tuple[Photo, ...]


def split_objects(seed: int) -> dict[str, Split]:
    """Divide every category's objects: about two fifths, and at least one, are kept for testing."""
    splits = {}
    for number, category in enumerate(CATEGORIES):
        photos = [photo for photo in shipped.objects() if photo.category == category]
        order = generator(seed, Stream.OBJECT_SPLIT, number).permutation(len(photos))
        test = max(1, round(_TEST_SHARE * len(photos)))
        shuffled = tuple(photos[i] for i in order)
        splits[category] = Split(train=shuffled[test:], test=shuffled[:test])
    return splits


def check_sizes(train: int, test: int) -> None:
    """Raise `UserError` unless both sets, and every fold, can hold all ten classes equally often."""
    smallest = len(CATEGORIES) * _FOLD_SHARE
    if train < smallest or train % smallest:
        raise UserError(f"{train} training pictures do not divide into equal folds: choose a multiple of {smallest}")
    if test < len(CATEGORIES) or test % len(CATEGORIES):
        raise UserError(f"{test} test pictures do not divide into ten classes: choose a multiple of {len(CATEGORIES)}")


def write_stl10(folder: Path, train: int, test: int, seed: int, workers: int = 1) -> None:
    """Write `train` and `test` pictures, class-balanced, and ten folds of a fifth of the training set into `folder`.

    The files are STL-10's: `{train,test}_X.bin` (uint8, 96x96, an image is its three planes, each column by column),
    `{train,test}_y.bin` (uint8, 1..10), `class_names.txt`, `fold_indices.txt` (a line a fold, from 0). `objects.json`
    beside them names each picture's cut-out. No object of the test set appears in training. Raises UserError if a
    number does not divide evenly.
    """
    check_sizes(train, test)
    folder.mkdir(parents=True)
    splits = split_objects(seed)
    train_labels = _labels(train, generator(seed, Stream.TRAIN_LABELS))
    test_labels = _labels(test, generator(seed, Stream.TEST_LABELS))
    train_objects = [splits[CATEGORIES[label]].train for label in train_labels]
    test_objects = [splits[CATEGORIES[label]].test for label in test_labels]
    drawn = {
        "train": _write_pictures(folder / "train_X.bin", train_objects, seed, Stream.TRAIN_PICTURES, workers),
        "test": _write_pictures(folder / "test_X.bin", test_objects, seed, Stream.TEST_PICTURES, workers),
    }
    (train_labels + 1).astype(np.uint8).tofile(folder / "train_y.bin")
    (test_labels + 1).astype(np.uint8).tofile(folder / "test_y.bin")
    (folder / "class_names.txt").write_text("".join(f"{name}\n" for name in CATEGORIES), encoding="ascii")
    folds = "".join(" ".join(map(str, fold)) + "\n" for fold in _folds(train_labels, generator(seed, Stream.FOLDS)))
    (folder / "fold_indices.txt").write_text(folds, encoding="ascii")
    (folder / "objects.json").write_text(json.dumps(drawn), encoding="utf-8")


def compose_picture(photo: Photo, rng: np.random.Generator) -> np.ndarray:
    """Compose a picture, uint8 (96, 96, 3): the object near the middle of a random place, filling 55 to 95% of it."""
    place = shipped.backgrounds()[rng.integers(len(shipped.backgrounds()))]
    canvas = background(place, (_DRAWN_SIDE, _DRAWN_SIDE), rng, smallest=0.4)
    scale = rng.uniform(0.55, 0.95) * _DRAWN_SIDE / max(object_size(photo))
    thing = cutout(photo, scale, flip=bool(rng.random() < 0.5))
    top, left = (round((_DRAWN_SIDE - side) / 2 + rng.uniform(-0.08, 0.08) * _DRAWN_SIDE) for side in thing.size)
    paste(canvas, thing, top, left)
    return cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def _write_pictures(
    file: Path, candidates: Sequence[Sequence[Photo]], seed: int, stream: Stream, workers: int
) -> list[str]:
    """Write the planes of one picture for each of `candidates`; returns the files of the cut-outs drawn."""
    objects = []
    with file.open("wb") as planes:
        make = partial(_picture, seed, stream)
        for photo, picture in ordered_map(make, list(enumerate(candidates)), workers, file.stem):
            planes.write(picture.transpose(2, 1, 0).tobytes())
            objects.append(photo.file)
    return objects


def _picture(seed: int, stream: Stream, numbered: tuple[int, Sequence[Photo]]) -> tuple[Photo, np.ndarray]:
    index, candidates = numbered
    rng = generator(seed, stream, index)
    photo = candidates[int(rng.integers(len(candidates)))]
    return photo, compose_picture(photo, rng)


def _labels(count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` labels 0..9, each equally often."""
    return rng.permutation(np.arange(count) % len(CATEGORIES))


def _folds(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw folds, int64 (10, n / 5) indices of the training set, every class equally often; rows may share indices."""
    each = len(labels) // _FOLD_SHARE // len(CATEGORIES)
    of_class = [np.flatnonzero(labels == label) for label in range(len(CATEGORIES))]
    rows = [np.concatenate([rng.choice(indices, each, replace=False) for indices in of_class]) for _ in range(FOLDS)]
    return np.array([rng.permutation(row) for row in rows])
