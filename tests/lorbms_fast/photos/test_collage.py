import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast.photos import shipped
from lorbms_fast.photos.collage import Cutout, background, cutout, object_size, paste
from lorbms_fast.photos.draws import Stream, generator

HEN = next(photo for photo in shipped.objects() if photo.file.endswith("bird_hen.webp"))


def square(colour: float, side: int = 20) -> Cutout:
    return Cutout(np.full((side, side, 3), colour, np.float32), np.ones((side, side), np.float32))


def test_a_cutout_has_the_asked_size_and_touches_every_side_of_its_box():
    height, width = object_size(HEN)
    thing = cutout(HEN, 1.0, flip=False)
    assert thing.size == (height, width)
    assert thing.color.shape == (height, width, 3)
    assert cutout(HEN, 0.5, flip=False).size == (round(height / 2), round(width / 2))
    covered = thing.alpha > 0.05
    assert np.flatnonzero(covered.any(0))[[0, -1]] == pytest.approx([0, width - 1], abs=2)
    assert np.flatnonzero(covered.any(1))[[0, -1]] == pytest.approx([0, height - 1], abs=2)


def test_the_edge_is_soft_and_the_inside_opaque():
    alpha = cutout(HEN, 1.0, flip=False).alpha
    assert alpha.min() == 0
    assert alpha.max() == pytest.approx(1)
    assert 0.02 < np.mean((alpha > 0.05) & (alpha < 0.95)) < 0.2


def test_a_flip_mirrors():
    one, other = cutout(HEN, 1.0, flip=False), cutout(HEN, 1.0, flip=True)
    np.testing.assert_allclose(one.alpha[:, ::-1], other.alpha, atol=1e-5)
    assert np.abs(one.alpha - other.alpha).max() > 0.5


def test_paste_changes_only_what_the_object_covers():
    canvas = np.full((60, 80, 3), 100, np.uint8)
    mask = paste(canvas, square(200), 10, 30)
    expected = np.zeros((60, 80), bool)
    expected[10:30, 30:50] = True
    np.testing.assert_array_equal(mask, expected)
    assert (canvas[~mask] == 100).all()
    assert (canvas[mask] != 100).all()


@settings(deadline=None, max_examples=40)
@given(top=st.integers(-19, 39), left=st.integers(-19, 49))
def test_what_sticks_out_is_cut_off(top: int, left: int):
    mask = paste(np.zeros((40, 50, 3), np.uint8), square(255), top, left)
    assert mask.sum() == (min(top + 20, 40) - max(top, 0)) * (min(left + 20, 50) - max(left, 0))


def test_an_object_takes_on_the_light_of_its_place():
    means = []
    for light in (20, 128, 240):
        canvas = np.full((40, 40, 3), light, np.uint8)
        means.append(canvas[paste(canvas, square(128), 10, 10)].mean())
    assert means[0] < 110
    assert means[1] == pytest.approx(128, abs=2)
    assert means[2] > 145


def test_an_object_takes_on_a_little_of_the_colour_of_its_place():
    canvas = np.full((40, 40, 3), (40, 120, 240), np.uint8)
    red, _, blue = canvas[paste(canvas, square(128), 10, 10)].mean(0)
    assert 5 < blue - red < 60


@pytest.mark.parametrize("size", [(480, 640), (640, 427), (192, 192)])
def test_a_background_has_the_asked_size_and_differs_from_draw_to_draw(size: tuple[int, int]):
    photo = shipped.backgrounds()[0]
    one, other = (background(photo, size, generator(0, Stream.SCENES, index)) for index in range(2))
    assert one.shape == other.shape == (*size, 3)
    assert one.dtype == np.uint8
    assert (one != other).mean() > 0.5
