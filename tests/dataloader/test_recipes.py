"""Which square of a photograph becomes an image."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.dataloader.decoders import cut
from lorbms_fast.dataloader.recipes import RECIPES, VERSIONS, Crop, content_key, square_crop

sides = st.integers(1, 700)


@given(st.integers(0, 5), st.text(max_size=8), st.sampled_from(sorted(VERSIONS)), sides, sides)
def test_squares_lie_inside_and_have_the_versions_size(seed, source, version, width, height):
    crop = square_crop(seed, source, version, width, height)
    scale, flip = VERSIONS[version]
    assert 0 <= crop.x <= width - crop.side
    assert 0 <= crop.y <= height - crop.side
    assert crop.side == max(1, min(round(scale * width), round(scale * height)))
    assert crop.flip == flip
    assert crop == square_crop(seed, source, version, width, height)


def test_seed_source_and_version_decide():
    crops = {square_crop(s, name, v, 640, 200) for s in (0, 1) for name in ("a", "b") for v in VERSIONS}
    assert len(crops) > 15


def test_squares_are_drawn_as_ever():
    """Seeds and photographs mean the same squares in every version of this program."""
    squares = [tuple(square_crop(3, content_key(b"a photograph"), version, 640, 480)) for version in VERSIONS]
    assert squares[:2] == [(48, 0, 480, False), (103, 0, 480, True)]
    assert squares[2:] == [(185, 183, 288, False), (181, 27, 336, True), (151, 16, 456, True)]


def test_mirroring_after_cutting():
    photograph = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(4, 5, 3)
    expected = photograph[:, ::-1][1:4, 1:4]  # mirror, then cut at x = 1: columns 3, 2, 1 of the original
    assert np.array_equal(cut(photograph, Crop(1, 1, 3, True), 3), expected)


def test_recipes_of_the_thesis():
    assert RECIPES["tr_v4"].versions == (1, 2)
    assert RECIPES["tr_v5"].versions == (1, 2, 3, 4, 5)
    assert {RECIPES[name].min_side for name in ("tr_v4", "tr_v5", "tr_v6", "te_v2")} == {200}
    assert [RECIPES[name].min_boxes for name in ("tr_v4", "tr_v5", "tr_v6", "te_v2")] == [4, 4, 0, 0]
    assert (RECIPES["tr_v6"].draw, RECIPES["te_v2"].draw) == (10_482, 10_492)
