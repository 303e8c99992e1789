"""Photographs as strangers' folders hold them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lorbms_fast.dataloader.decode import BadImage, read_rgb
from lorbms_fast.dataloader.resize import area_resize


def picture(width=40, height=30) -> Image.Image:
    generator = np.random.Generator(np.random.Philox(1))
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "1", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode, tmp_path):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image = picture().convert(mode)
    image.save(path)
    found = read_rgb(path)
    assert found.shape == (30, 40, 3)
    if mode in ("L", "1"):
        assert (found[..., 0] == found[..., 2]).all()


def test_sixteen_bits_keep_their_upper_eight(tmp_path):
    values = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png")[..., 0], values >> 8)


def test_transparency_is_laid_over_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_rgb(tmp_path / "a.png") == 255).all()


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    picture(40, 30).save(tmp_path / "a.jpg", exif=exif)
    assert read_rgb(tmp_path / "a.jpg").shape == (40, 30, 3)


def spoil(path: Path, how: str) -> None:
    picture().save(path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "html":
        path.write_text("<html>404</html>")
    elif how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("how", ["truncated", "empty", "html", "missing", "folder"])
def test_bad_files_are_named_on_one_line(how, tmp_path):
    path = tmp_path / "bad.jpg"
    spoil(path, how)
    with pytest.raises(BadImage) as error:
        read_rgb(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_absurd_sizes_are_refused_before_decoding(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("1", (20_000, 10_000)).save(path)
    with pytest.raises(BadImage, match="more than 100,000,000 pixels"):
        read_rgb(path)


def exact_area(n: int, side: int) -> np.ndarray:
    """(side, n): how much of each input pixel lies in each output pixel, rows summing to 1."""
    edges = np.arange(side + 1) * n / side
    pixels = np.arange(n)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(covered, 0, None) * side / n


@settings(deadline=None, max_examples=30)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(1, 8))
def test_area_resize_averages_areas(height, width, side):
    image = np.asarray(picture(width, height))
    expected = np.einsum("ih,hwc,jw->ijc", exact_area(height, side), image.astype(np.float64), exact_area(width, side))
    assert np.abs(area_resize(image, side) - expected).max() <= 1.01


def test_enlarging_interpolates():
    image = np.asarray(picture(5, 5))
    assert np.array_equal(area_resize(image, 9), cv2.resize(image, (9, 9), interpolation=cv2.INTER_LINEAR))
