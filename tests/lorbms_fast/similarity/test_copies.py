"""Which images of a store show the same picture."""

import io

import numpy as np
import pytest
from PIL import Image

from lorbms_fast.dataloader.resize import area_resize
from lorbms_fast.photos.scene import compose_scene
from lorbms_fast.similarity import copies
from lorbms_fast.similarity.copies import originals


@pytest.fixture(scope="module")
def scenes() -> np.ndarray:
    """Twelve photographs, (12, 480, 480, 3)."""
    scenes = [compose_scene(np.random.Generator(np.random.Philox(i))).image for i in range(12)]
    return np.stack([area_resize(scene[: min(scene.shape[:2]), : min(scene.shape[:2])], 480) for scene in scenes])


def stored(images: list[np.ndarray]) -> np.ndarray:
    return np.stack([area_resize(image, 64) for image in images])


def saved_again(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=85)
    return np.asarray(Image.open(buffer))


def stills(image: np.ndarray, count: int) -> list[np.ndarray]:
    """A camera that does not move, and its noise."""
    generator = np.random.Generator(np.random.Philox(1))
    return [np.clip(image + generator.normal(0, 4, image.shape), 0, 255).astype(np.uint8) for _ in range(count)]


@pytest.mark.parametrize("block", [3, 1024])
def test_same_pictures_and_others(scenes, block, monkeypatch):
    monkeypatch.setattr(copies, "BLOCK", block)
    images = [*scenes, scenes[2], saved_again(scenes[5]), *stills(scenes[7], 4), scenes[2]]
    of_scene = [*range(12), 2, 5, 7, 7, 7, 7, 2]
    found = originals(stored(images))
    assert np.array_equal(found[found], found)
    assert np.array_equal(found[:, None] == found, np.equal.outer(of_scene, of_scene))


def test_what_looks_alike_from_afar_is_no_copy(scenes):
    """Noise, a picture moved by few pixels, and one small thing in the dark."""
    noise = list(np.random.Generator(np.random.Philox(0)).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8))
    night = np.full((3, 64, 64, 3), 4, np.uint8)
    night[1, 10:14, 10:14], night[2, 50:54, 20:24] = 150, 150
    moved = [scenes[0][:470, :470], scenes[0][6:476, 6:476]]
    found = originals(stored([*noise, *night, *moved]))
    assert np.array_equal(found, np.arange(25))


def test_copies_differ_by_few_levels():
    image = np.random.Generator(np.random.Philox(0)).integers(50, 200, (64, 64, 3), dtype=np.uint8)
    found = originals(np.stack([image, image + np.uint8(4), image + np.uint8(12)]))
    assert found[0] == found[1] != found[2]


def test_one_picture_alone():
    assert len(set(originals(np.full((2100, 64, 64, 3), 77, np.uint8)))) == 1


@pytest.mark.parametrize("side", [50, 9, 4])
def test_sides_that_are_no_multiple_of_the_grid(side, scenes):
    images = np.stack([area_resize(image, side) for image in [*scenes[:3], scenes[1]]])
    assert originals(images).tolist() in ([0, 1, 2, 1], [0, 3, 2, 3])
