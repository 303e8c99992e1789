import contextlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from lorbms_fast.photos import shipped
from lorbms_fast.photos.coco import ANNOTATIONS, IMAGES, write_coco

SCENES = 80


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "coco"
    write_coco(folder, SCENES, seed=3)
    return folder


@pytest.fixture(scope="module")
def coco(written: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(written / ANNOTATIONS))


def test_ids_are_unique_and_refer_to_each_other(written: Path):
    data = json.loads((written / ANNOTATIONS).read_text())
    ids = {part: [one["id"] for one in data[part]] for part in ("images", "annotations", "categories", "licenses")}
    for of_part in ids.values():
        assert len(of_part) == len(set(of_part)) > 0
    assert {one["image_id"] for one in data["annotations"]} == set(range(1, SCENES + 1))
    assert {one["category_id"] for one in data["annotations"]} <= set(ids["categories"])
    assert {one["license"] for one in data["images"]} <= set(ids["licenses"])
    assert [one["name"] for one in data["categories"]] == list(shipped.CATEGORIES)


def test_every_image_is_there_with_the_stated_size(written: Path, coco: COCO):
    assert {path.name for path in (written / IMAGES).iterdir()} == {one["file_name"] for one in coco.imgs.values()}
    for entry in coco.imgs.values():
        with Image.open(written / IMAGES / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])
            assert image.format == "JPEG"


def test_composed_scenes_are_of_coco_size_landscape_and_portrait(coco: COCO):
    sizes = {(coco.imgs[number]["width"], coco.imgs[number]["height"]) for number in range(1, SCENES + 1)}
    assert min(min(size) for size in sizes) >= 200
    assert max(max(size) for size in sizes) <= 640
    assert {width > height for width, height in sizes} == {True, False}


def test_photographs_follow_without_annotations_under_their_own_licence(coco: COCO):
    licences = {one["id"]: one["name"] for one in coco.dataset["licenses"]}
    images = [image for number, image in coco.imgs.items() if number > SCENES]
    assert [image["photograph"] for image in images] == [photo.file for photo in shipped.scenes()]
    assert [licences[image["license"]] for image in images] == [photo.licence for photo in shipped.scenes()]
    assert not coco.getAnnIds(imgIds=[image["id"] for image in images])


def test_masks_boxes_and_areas_agree(coco: COCO):
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        mask = coco.annToMask(annotation).astype(bool)
        assert mask.shape == (image["height"], image["width"])
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
        assert annotation["bbox"] == box
        assert annotation["area"] == mask.sum() > 20
        assert annotation["iscrowd"] == 0


def test_masks_are_of_what_is_visible(coco: COCO):
    for number in range(1, SCENES + 1):
        masks = [coco.annToMask(one) for one in coco.loadAnns(coco.getAnnIds(imgIds=[number]))]
        assert np.sum(masks, axis=0).max() == 1


def test_the_category_is_that_of_the_object(coco: COCO):
    of_object = {photo.file: photo.category for photo in shipped.objects()}
    for annotation in coco.anns.values():
        assert coco.cats[annotation["category_id"]]["name"] == of_object[annotation["object"]]


def test_objects_have_plausible_sizes(coco: COCO):
    share = []
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        share.append(max(annotation["bbox"][2] / image["width"], annotation["bbox"][3] / image["height"]))
    assert max(share) < 0.5
    assert np.mean(np.array(share) > 0.15) > 0.9


def test_most_scenes_hold_four_objects_in_four_quadrants(coco: COCO):
    quadrants: dict[int, list[tuple[bool, bool]]] = {number: [] for number in range(1, SCENES + 1)}
    for annotation in coco.anns.values():
        image, (left, top, width, height) = coco.imgs[annotation["image_id"]], annotation["bbox"]
        right_half, lower_half = left + width / 2 >= image["width"] / 2, top + height / 2 >= image["height"] / 2
        quadrants[annotation["image_id"]].append((right_half, lower_half))
    counts = Counter(map(len, quadrants.values()))
    in_all = sum(len(set(of_scene)) == 4 for of_scene in quadrants.values())
    assert sum(scenes for objects, scenes in counts.items() if objects >= 4) >= 0.8 * SCENES
    assert in_all >= 0.75 * SCENES


def test_photographs_can_be_left_out(tmp_path: Path):
    write_coco(tmp_path / "coco", 2, seed=0, photographs=False)
    assert len(list((tmp_path / "coco" / IMAGES).iterdir())) == 2
