"""STL-10's binary files are read as they are published."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lorbms_fast.dataloader.sources.stl10 import CLASSES, SIDE
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets import stl10 as stl10_module
from lorbms_fast.evaluation.datasets.stl10 import read_stl10


def write(folder: Path, pictures: np.ndarray, labels: list[int], names: tuple[str, ...] = CLASSES) -> Path:
    """The layout said in STL-10's own words: planes red, green, blue, each stored column after column."""
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        with (folder / f"{split}_X.bin").open("wb") as file:
            for picture in pictures:
                for channel in range(3):
                    for column in range(SIDE):
                        file.write(bytes(picture[:, column, channel]))
        (folder / f"{split}_y.bin").write_bytes(bytes(labels))
    (folder / "class_names.txt").write_text("\n".join(names) + "\n")
    (folder / "fold_indices.txt").write_text("0 2 \n1 0 \n")
    return folder


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def test_pixels_labels_and_folds(pictures: np.ndarray, tmp_path: Path, monkeypatch):
    data = read_stl10(write(tmp_path / "stl10_binary", pictures, [1, 10, 4]))
    np.testing.assert_array_equal(data.train.pictures, pictures)
    np.testing.assert_array_equal(data.test.pictures[1], pictures[1])
    np.testing.assert_array_equal(data.train.labels, [0, 9, 3])
    np.testing.assert_array_equal(data.folds, [[0, 2], [1, 0]])
    assert data.train.source == "not STL-10: other pictures in its format (3 of train, not 5,000)"
    monkeypatch.setattr(stl10_module, "SIZES", {"train": 3, "test": 3})
    assert read_stl10(tmp_path).train.source == "STL-10"
    assert len(read_stl10(tmp_path).test) == 3, "the folder above is taken too"


def test_other_pictures_are_not_taken_for_stl10(stl10):
    assert stl10.train.source.startswith("not STL-10")
    assert stl10.folds.shape == (10, 10)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "train_X.bin").unlink(), "train_X.bin is missing"),
        (lambda folder: (folder / "test_X.bin").write_bytes(b"x" * 100), "has 100 bytes, not a multiple of"),
        (lambda folder: (folder / "test_y.bin").write_bytes(bytes([1, 2])), "3 pictures and 2 labels of test"),
        (lambda folder: (folder / "train_y.bin").write_bytes(bytes([0, 1, 2])), "labels 0 to 2"),
        (lambda folder: (folder / "fold_indices.txt").write_text("0 3\n1 2\n"), "does not hold folds of 3"),
        (lambda folder: (folder / "fold_indices.txt").write_text("0 1\n1\n"), "equally long lines"),
        (lambda folder: (folder / "fold_indices.txt").write_text(""), "does not hold folds"),
        (lambda folder: (folder / "class_names.txt").unlink(), "class_names.txt is missing"),
        (lambda folder: (folder / "class_names.txt").write_bytes(b"\xff"), "cannot be read"),
    ],
)
def test_damaged_sets_are_named(damage, message, pictures, tmp_path):
    folder = write(tmp_path / "stl10_binary", pictures, [1, 10, 4])
    damage(folder)
    with pytest.raises(UserError, match=message):
        read_stl10(folder)
    shutil.rmtree(folder)
