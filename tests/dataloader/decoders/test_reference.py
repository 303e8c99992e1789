"""Photographs as strangers' folders hold them."""

import fcntl
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorbms_fast.dataloader.decoders import BadImage, read_rgb, reference


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


@pytest.mark.parametrize(("bits", "zero_is_white"), [(12, False), (16, False), (16, True)])
def test_deep_tiffs_of_scanners_keep_their_upper_eight(bits, zero_is_white, tmp_path):
    values = np.arange(0, 4096, 8, dtype=np.uint16).reshape(16, 32)
    deep = values << (bits - 12)
    Image.fromarray(deep).save(tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    if bits == 12:  # two pixels in three bytes
        digits = "".join(f"{value:03x}" for value in values.ravel().tolist())
        data = data.replace(deep.tobytes(), bytes.fromhex(digits).ljust(deep.nbytes, b"\0"))
        data = data.replace(tiff_number(258, 16), tiff_number(258, 12))
    if zero_is_white:
        data = data.replace(tiff_number(262, 1), tiff_number(262, 0))
    (tmp_path / "a.tif").write_bytes(data)
    expected = 255 - (values >> 4) if zero_is_white else values >> 4
    assert np.array_equal(read_rgb(tmp_path / "a.tif")[..., 1], expected)


def tiff_number(tag: int, value: int) -> bytes:
    """An entry of a TIFF's directory: one number of 16 bits."""
    return struct.pack("<HHIHH", tag, 3, 1, value, 0)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_a_pngs_transparent_color_becomes_white_at_any_depth(kind, depth, tmp_path):
    most, channels = 2**depth - 1, {"grey": 1, "rgb": 3}[kind]
    if kind == "rgb" and depth < 8:
        pytest.skip("PNG has none")
    values = np.linspace(0, most, 16 * channels).astype(int).reshape(16, channels)
    clear = values[5]
    packed = "".join(f"{value:0{depth}b}" for value in values.ravel().tolist())
    row = b"\0" + int(packed, 2).to_bytes(len(packed) // 8)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 16, 1, depth, {"grey": 0, "rgb": 2}[kind], 0, 0, 0))]
    chunks += [(b"tRNS", clear.astype(">u2").tobytes()), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    file = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks:
        file += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    (tmp_path / "a.png").write_bytes(file)
    shown = values * 255 // most if depth < 8 else values >> (depth - 8)
    expected = np.where((values == clear).all(1, keepdims=True), 255, shown)
    assert np.array_equal(read_rgb(tmp_path / "a.png")[0], np.broadcast_to(expected, (16, 3)))


def test_transparency_is_laid_over_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert (read_rgb(tmp_path / "a.png") == 255).all()


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    picture(40, 30).save(tmp_path / "a.jpg", exif=exif)
    assert read_rgb(tmp_path / "a.jpg").shape == (40, 30, 3)


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_is_none_of_the_eight_turns_nothing(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(40, 30).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.asarray(picture(40, 30)))


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


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\nftypmif1", "HEIC"),
        (b"\xff\x0a", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    ],
)
def test_pictures_of_other_formats_are_told_whatever_they_are_called(start, name, tmp_path):
    (tmp_path / "IMG_0001.jpg").write_bytes(start + bytes(100))
    with pytest.raises(BadImage, match=rf"is in the format {name}, .* \(convert it to JPEG or PNG\)"):
        read_rgb(tmp_path / "IMG_0001.jpg")


def test_absurd_sizes_are_refused_before_decoding(tmp_path):
    path = tmp_path / "wide.png"
    Image.new("1", (20_000, 10_000)).save(path)
    with pytest.raises(BadImage, match="more than 100,000,000 pixels"):
        read_rgb(path)


@pytest.mark.parametrize(("kind", "channels"), [(b"P5", 1), (b"P6", 3)])
@pytest.mark.parametrize("most", [1, 100, 255, 1023, 4095, 65535])
def test_netpbm_of_any_depth(kind, channels, most, tmp_path):
    values = np.array([0, most // 3, most // 2, most]).repeat(channels).astype(np.uint8 if most < 256 else ">u2")
    (tmp_path / "a.pnm").write_bytes(kind + b"\n2 2\n%d\n" % most + values.tobytes())
    found = read_rgb(tmp_path / "a.pnm").reshape(4, 3)
    assert np.abs(found.astype(int) - values.reshape(4, -1) / most * 255).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "1", "LA", "RGBA", "I;16"])
@pytest.mark.parametrize("orientation", [1, 2, 5, 6, 7, 8])
def test_bands_make_the_same_picture(mode, orientation, tmp_path, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = (
        picture().convert(mode) if mode != "I;16" else Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40))
    )
    image.save(tmp_path / "a.tif", exif=exif)
    whole = read_rgb(tmp_path / "a.tif")
    monkeypatch.setattr(reference, "BAND", 100)
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), whole)
    assert whole.flags["C_CONTIGUOUS"]
    if mode == "RGB":
        turned = {1: 1, 2: Image.Transpose.FLIP_LEFT_RIGHT, 5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270}
        turned |= {7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}
        expected = image if orientation == 1 else image.transpose(turned[orientation])
        assert np.array_equal(whole, np.asarray(expected))


def test_large_pictures_take_bounded_memory(tmp_path):
    Image.new("L", (9900, 9900), 7).save(tmp_path / "a.png", compress_level=1)
    script = """
import resource, sys
from pathlib import Path
from lorbms_fast.dataloader.decoders import read_rgb
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert (read_rgb(Path(sys.argv[1])) == 7).all()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.png")], capture_output=True, text=True, check=True
    )
    pixels = 9900 * 9900 / 2**20
    assert int(done.stdout) < (1 + 3 + 3) * pixels  # Pillow's, ours, the comparison's and some


def test_large_pictures_are_decoded_one_at_a_time():
    with Path(reference.__file__).open("rb") as file:
        with reference._one_at_a_time(reference.LARGE), pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with reference._one_at_a_time(reference.LARGE - 1):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
