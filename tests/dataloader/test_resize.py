"""Area resampling against its definition."""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast.compiled import native_loops
from lorbms_fast.dataloader.resize import area_resize, area_squares

sides = st.integers(8, 40)


def picture(width: int, height: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox(1)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def exact_area(n: int, side: int, start: float = 0, length: float | None = None) -> np.ndarray:
    """(side, n): how much of each input pixel lies in each part of a stretch, rows summing to 1."""
    length = n if length is None else length
    edges = start + np.arange(side + 1) * length / side
    pixels = np.arange(n)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(covered, 0, None) * side / length


@settings(deadline=None, max_examples=50)
@given(
    st.integers(8, 40), st.integers(8, 40), st.integers(1, 8), st.lists(st.tuples(*[st.floats(0, 1)] * 3), max_size=3)
)
def test_squares_between_pixels_are_averaged_exactly(height, width, side, places):
    image, boxes = picture(width, height), []
    for across, down, size in places:
        length = side + size * (min(height, width) - side)
        boxes.append((across * (width - length), down * (height - length), length))
    found = area_squares(image, boxes, side)
    assert found.shape == (len(boxes), side, side, 3)
    for average, (x, y, length) in zip(found, boxes, strict=True):
        over = exact_area(height, side, y, length), image.astype(np.float64), exact_area(width, side, x, length)
        assert np.abs(average - np.einsum("ih,hwc,jw->ijc", *over)).max() <= 0.501


@settings(deadline=None, max_examples=50)
@given(st.integers(8, 90), st.integers(8, 90), st.integers(1, 8), st.floats(0, 1), st.floats(0, 1), st.integers(1, 4))
def test_the_loop_gives_numpys_bytes(height, width, side, place, size, channels):
    image = np.random.Generator(np.random.Philox(height)).integers(0, 256, (height, width, channels), dtype=np.uint8)
    length = side + size * (min(height, width) - side)
    boxes = [(place * (width - length), (1 - place) * (height - length), length)]
    with native_loops(False):
        expected = area_squares(image, boxes, side)
    for laid_out in (image, np.asfortranarray(image), image.repeat(2, 0)[::2]):
        assert np.array_equal(area_squares(laid_out, boxes, side), expected)


def test_white_stays_white_however_large():
    image = np.full((3000, 3000, 3), 255, np.uint8)
    assert (area_squares(image, [(0.5, 0.25, 2999)], 8) == 255).all()


@settings(deadline=None, max_examples=30)
@given(sides, sides, st.integers(1, 8))
def test_area_resize_averages_areas(height, width, side):
    image = picture(width, height)
    expected = np.einsum("ih,hwc,jw->ijc", exact_area(height, side), image.astype(np.float64), exact_area(width, side))
    assert np.abs(area_resize(image, side) - expected).max() <= 1.01


def test_enlarging_interpolates():
    image = picture(5, 5)
    assert np.array_equal(area_resize(image, 9), cv2.resize(image, (9, 9), interpolation=cv2.INTER_LINEAR))
