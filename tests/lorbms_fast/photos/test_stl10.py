import json
from pathlib import Path

import numpy as np
import pytest

from lorbms_fast.errors import UserError
from lorbms_fast.photos.draws import Stream, generator
from lorbms_fast.photos.shipped import CATEGORIES, objects
from lorbms_fast.photos.stl10 import SIDE, check_sizes, compose_picture, split_objects, write_stl10

TRAIN, TEST, SEED = 100, 40, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compose") / "stl10_binary"
    write_stl10(path, TRAIN, TEST, SEED)
    return path


def pictures(folder: Path, name: str) -> np.ndarray:
    planes = np.fromfile(folder / f"{name}_X.bin", np.uint8).reshape(-1, 3, SIDE, SIDE)
    return planes.transpose(0, 3, 2, 1)


@pytest.mark.parametrize(("name", "count"), [("train", TRAIN), ("test", TEST)])
def test_sizes_and_balanced_labels(folder: Path, name: str, count: int):
    assert (folder / f"{name}_X.bin").stat().st_size == count * 3 * SIDE * SIDE
    labels = np.fromfile(folder / f"{name}_y.bin", np.uint8)
    np.testing.assert_array_equal(np.bincount(labels, minlength=11), [0, *[count // 10] * 10])
    assert (np.diff(labels.astype(int)) < 0).any(), "the classes come in a shuffled order"


@pytest.mark.parametrize(("name", "stream"), [("train", Stream.TRAIN_PICTURES), ("test", Stream.TEST_PICTURES)])
def test_pictures_are_stored_plane_by_plane_and_column_by_column(folder: Path, name: str, stream: Stream):
    by_file = {photo.file: photo for photo in objects()}
    drawn = json.loads((folder / "objects.json").read_text())[name]
    splits = split_objects(SEED)
    labels = np.fromfile(folder / f"{name}_y.bin", np.uint8)
    for index in range(5):
        candidates = getattr(splits[CATEGORIES[labels[index] - 1]], name)
        rng = generator(SEED, stream, index)
        assert candidates[rng.integers(len(candidates))].file == drawn[index]
        expected = compose_picture(by_file[drawn[index]], rng)
        np.testing.assert_array_equal(pictures(folder, name)[index], expected)


def test_labels_are_the_categories_of_the_objects(folder: Path):
    category = {photo.file: photo.category for photo in objects()}
    names = (folder / "class_names.txt").read_text().split()
    assert tuple(names) == CATEGORIES
    for name, drawn in json.loads((folder / "objects.json").read_text()).items():
        labels = np.fromfile(folder / f"{name}_y.bin", np.uint8)
        assert [names[label - 1] for label in labels] == [category[file] for file in drawn]


def test_no_object_of_the_test_set_is_in_the_training_set(folder: Path):
    drawn = json.loads((folder / "objects.json").read_text())
    assert set(drawn["train"])
    assert set(drawn["test"])
    assert not set(drawn["train"]) & set(drawn["test"])


@pytest.mark.parametrize("seed", range(5))
def test_every_category_has_objects_on_both_sides_and_none_is_lost(seed: int):
    splits = split_objects(seed)
    assert list(splits) == list(CATEGORIES)
    for split in splits.values():
        assert split.train
        assert split.test
    everything = [photo for split in splits.values() for photo in (*split.train, *split.test)]
    assert sorted(photo.file for photo in everything) == [photo.file for photo in objects()]


def test_the_split_follows_the_seed():
    assert split_objects(0) == split_objects(0) != split_objects(1)


def test_ten_balanced_folds_of_a_fifth(folder: Path):
    labels = np.fromfile(folder / "train_y.bin", np.uint8)
    folds = [np.array(line.split(), int) for line in (folder / "fold_indices.txt").read_text().splitlines()]
    assert len(folds) == 10
    for fold in folds:
        assert len(fold) == len(set(fold)) == TRAIN // 5
        np.testing.assert_array_equal(np.bincount(labels[fold], minlength=11)[1:], TRAIN // 50)
    assert len({tuple(sorted(fold)) for fold in folds}) == 10


def test_the_object_stands_in_the_middle():
    photo = next(photo for photo in objects() if photo.file.endswith("fruit_kiwi.webp"))
    many = np.array([compose_picture(photo, generator(0, Stream.TRAIN_PICTURES, index)) for index in range(40)])
    spread = many.astype(float).std(0).mean(-1)
    border = np.concatenate([spread[:6].ravel(), spread[-6:].ravel()])
    assert spread[38:58, 38:58].mean() < 0.6 * border.mean()


@pytest.mark.parametrize(("train", "test"), [(0, 10), (60, 10), (-50, 10), (50, 0), (50, 15), (50, -10)])
def test_numbers_that_do_not_divide_are_refused(train: int, test: int):
    with pytest.raises(UserError, match="choose a multiple of"):
        check_sizes(train, test)
