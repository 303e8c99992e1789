"""Photographs in every format that is read, by both decoders of the CPU and as a page's upload."""

import io
import zlib
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from lorbms_fast.app.pictures import square_of
from lorbms_fast.dataloader.decoders import BadImage, decoder_named, read_rgb, read_squares
from lorbms_fast.dataloader.image_file import ByteRange
from lorbms_fast.dataloader.recipes import Crop
from tests.fuzz.material import colours, picture
from tests.fuzz.reader import Reader

SIDE = 8


def seeds() -> list[bytes]:
    """One of each format and mode; turned ones; with sizes, texts and tags that lie."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "x" * 500
    png = picture("PNG")
    return [
        *(picture(format) for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")),
        *(picture("PNG", mode=mode) for mode in ("1", "L", "LA", "P", "RGBA", "I;16")),
        *(picture("TIFF", compression=how) for how in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")),
        *(picture("JPEG", mode=mode) for mode in ("L", "CMYK")),
        picture("JPEG", exif=exif),
        picture("JPEG", progressive=True, height=40, width=50),
        picture("PNG", exif=exif),
        animation(),
        png_claiming(png, 60_000, 60_000),
        png_claiming(png, 2**31 - 1, 1),
        png_claiming(png, 0, 0),
        with_text(png, 64 << 20),
    ]


def read(data: bytes, folder: Path) -> None:
    """All ways; the decoders refuse together or give the same size. A PNG's sums are put right first."""
    (folder / "picture.png").write_bytes(summed(data))
    whole: Callable[[int, int], tuple[Crop, ...]] = lambda width, height: (Crop(0, 0, min(width, height), False),)  # noqa: E731
    found = [
        read_squares(folder, [ByteRange("picture.png")], [lambda data: whole], SIDE, decoder_named(n))[0]
        for n in ("scaled", "pillow")
    ]
    bad = [one for one in found if isinstance(one, BadImage)]
    if bad:
        raise bad[0]
    assert found[0].width == found[1].width  # type: ignore[union-attr]
    assert found[0].height == found[1].height  # type: ignore[union-attr]
    assert read_rgb(folder / "picture.png").shape[2] == 3
    assert square_of(summed(data), SIDE).shape == (SIDE, SIDE, 3)


def animation() -> bytes:
    """A GIF of two pictures."""
    file, frames = io.BytesIO(), [Image.fromarray(colours(6, 7, seed)) for seed in (0, 1)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def png_claiming(png: bytes, width: int, height: int) -> bytes:
    """A PNG whose header states another size."""
    return png[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + png[24:]


def with_text(png: bytes, length: int) -> bytes:
    """A PNG with a compressed text of many times its length."""
    text = b"a\0\0" + zlib.compress(bytes(length))
    return png[:33] + len(text).to_bytes(4, "big") + b"zTXt" + text + b"\0\0\0\0" + png[33:]


def summed(data: bytes) -> bytes:
    """A PNG whose chunks have the sums that they should have; other bytes stay."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    at, parts = 8, [data[:8]]
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        parts += [data[at:end], zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")]
        at = end + 4
    return b"".join([*parts, data[at:]])


READER = Reader("pictures", read, seeds, ("picture.png", "this file"))
