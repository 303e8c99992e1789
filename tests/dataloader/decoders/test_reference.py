"""Photographs as strangers' folders hold them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorbms_fast.dataloader.decoders import BadImage, read_rgb


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
