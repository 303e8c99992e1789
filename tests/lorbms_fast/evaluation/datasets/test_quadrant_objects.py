"""The object of a quadrant follows crop and mirroring."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.datasets.quadrant_objects import covered, read_quadrant_objects
from lorbms_fast.similarity.quadrants import quadrant


def test_covered_is_the_mean_of_a_painted_box():
    """The definition: paint the box, cut and mirror the picture, average over the quadrant."""
    generator = np.random.default_rng(0)
    seen = 0
    for _ in range(200):
        left, top, width, height = (int(v) for v in generator.integers(1, 60, 4))
        x, y, side, flip = (*(int(v) for v in generator.integers(0, 30, 2)), 40, bool(generator.integers(2)))
        canvas = np.zeros((130, 130, 1))
        canvas[top : top + height, left : left + width] = 1
        square = canvas[y : y + side, x : x + side]
        square = square[:, ::-1] if flip else square
        for q in range(4):
            expected = quadrant(square, q).mean()
            seen += 0 < expected < 1
            assert covered([left, top, width, height], x, y, side, flip, q) == pytest.approx(expected)
    assert seen > 100


@pytest.fixture
def versions(photographs: Path, tmp_path: Path) -> ImageStore:
    prepare_store(tmp_path / "versions", photographs, of_folder(photographs), Recipe(versions=(1, 2)))
    return ImageStore.open(tmp_path / "versions")


def write(path: Path, annotations: list[dict[str, object]]) -> Path:
    content = {
        "images": [{"id": i, "file_name": f"photo{i:02d}.jpg"} for i in range(24)],
        "categories": [{"id": 7, "name": "bee"}, {"id": 3, "name": "bus"}],
        "annotations": annotations,
    }
    path.write_text(json.dumps(content))
    return path


def test_labels_of_a_store(versions, tmp_path):
    boxes = [
        {"image_id": 4, "category_id": 7, "bbox": [0, 0, 200, 200], "iscrowd": 0},
        {"image_id": 5, "category_id": 3, "bbox": [0, 0, 200, 200], "iscrowd": 1},
        {"image_id": 6, "category_id": 3, "bbox": [0, 0, 200, 40]},
        {"image_id": 6, "category_id": 7, "bbox": [0, 0, 200, 8]},
    ]
    found = read_quadrant_objects(versions, write(tmp_path / "instances.json", boxes))
    assert found.classes == ("bus", "bee")
    rows = {name: row for row, name in enumerate(versions.ids)}
    for version in (1, 2):
        np.testing.assert_array_equal(found.labels[rows[f"photo04_{version}"]], [1, 1, 1, 1])
        np.testing.assert_array_equal(found.labels[rows[f"photo05_{version}"]], [-1] * 4)
        np.testing.assert_array_equal(found.labels[rows[f"photo06_{version}"]], [0, 0, -1, -1])


def test_annotations_that_are_no_boxes_do_not_spoil_the_others(versions, tmp_path):
    box = {"image_id": 4, "category_id": 7, "bbox": [0, 0, 200, 200]}
    odd = [3, {}, box | {"image_id": 99}, box | {"image_id": "4"}, box | {"category_id": 8}, box | {"category_id": []}]
    odd += [box | {"bbox": of} for of in ([], [0, 0, 200], None, ["0", 0, 9, 9], [float("nan"), 0, 9, 9])]
    path = tmp_path / "instances.json"
    alone = read_quadrant_objects(versions, write(path, [box]))
    np.testing.assert_array_equal(read_quadrant_objects(versions, write(path, [box, *odd])).labels, alone.labels)


def test_composed_scenes_have_their_objects(composed_store):
    found = read_quadrant_objects(composed_store, None)
    assert len(found.classes) == 10
    assert (found.labels >= 0).mean() > 0.6
    mirrored = np.array(composed_store.index["flip"].to_pylist())
    assert mirrored.any()
    assert not mirrored.all()


def test_files_of_one_name_are_told_apart_by_their_folders(photographs, tmp_path):
    for folder, name in (("a", "photo00.jpg"), ("b", "photo01.jpg")):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        shutil.copy(photographs / name, tmp_path / "photos" / folder / "1.jpg")
    prepare_store(tmp_path / "store", tmp_path / "photos", of_folder(tmp_path / "photos"), Recipe())
    box = {"bbox": [0, 0, 200, 200]}
    content = {
        "images": [{"id": 1, "file_name": "b/1.jpg"}, {"id": 2, "file_name": "photos/a/1.jpg"}],
        "categories": [{"id": 1, "name": "bee"}, {"id": 2, "name": "bus"}],
        "annotations": [{"image_id": 1, "category_id": 1} | box, {"image_id": 2, "category_id": 2} | box],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    found = read_quadrant_objects(ImageStore.open(tmp_path / "store"), tmp_path / "instances.json")
    assert found.labels.tolist() == [[1] * 4, [0] * 4]


def test_mistakes(versions, tmp_path):
    with pytest.raises(UserError, match="name it with --annotations"):
        read_quadrant_objects(versions, None)
    with pytest.raises(UserError, match="speaks of no object"):
        read_quadrant_objects(versions, write(tmp_path / "none.json", []))
    (tmp_path / "half.json").write_text('{"images": [')
    with pytest.raises(UserError, match="is not JSON"):
        read_quadrant_objects(versions, tmp_path / "half.json")
    for other in ('{"images": [{"name": 1}]}', '{"categories": [1], "images": [], "annotations": []}'):
        (tmp_path / "other.json").write_text(other)
        with pytest.raises(UserError, match="no instances file"):
            read_quadrant_objects(versions, tmp_path / "other.json")
