"""The reference decoder: Pillow, every pixel, whatever a folder of photographs may hold."""

import fcntl
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from lorbms_fast.dataloader.decoders.interface import Crops, Squares
from lorbms_fast.dataloader.image_file import BadImage, ByteRange

FORMATS = ("JPEG", "PNG", "WEBP", *(["AVIF"] if find_spec("PIL.AvifImagePlugin") else []), "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of the formats that are read, AVIF from Pillow 11.3 on. Others are not tried: some of Pillow's readers
start other programs."""
UNREAD = {
    "HEIC": (b"....ftyphe", b"....ftypmif1", b"....ftypmsf1"),
    "JPEG XL": (b"\xff\x0a", b"....JXL "),
    "JPEG 2000": (b"....jP  ", b"\xff\x4f\xff\x51"),
    "PDF": (b"%PDF",),
}
"""Formats that are not read -> the first bytes of their files, a dot for any: phones call HEIC pictures .jpg, too."""
DAMAGED = ("remature end", "bad Huffman code", "bad arithmetic code", "instead of RST", "extraneous bytes")
"""Words of libjpeg's warnings of damaged codes; others are of metadata."""
MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a file of some kilobytes can claim any size."""

LARGE = 25_000_000
"""Pixels from which on pictures are decoded one at a time, whatever the threads and processes: one of `MAX_PIXELS`
takes 0.7 GB."""
BAND = 4_000_000
"""Pixels that are converted at a time: Pillow has 4 bytes a pixel, and makes copies."""

_AS_STORED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""EXIF orientation -> the view of an upright photograph in which it lies as the file has it."""


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read a photograph from a file, as `decode_rgb` does; BadImage, too, where it is missing."""
    return decode_rgb(ByteRange(path.name).read(path.parent), path)


def decode_rgb(data: bytes, name: Path | str, intact: bool = False) -> NDArray[np.uint8]:
    """Decode a photograph to uint8 (H, W, 3), turned upright as its EXIF orientation says.

    Greyscale is repeated, CMYK and palettes are converted, 16 bits lose their lower 8, transparency is laid over white;
    of an animation the first picture is read. Color profiles are ignored. `name` stands for it in messages.

    >>> decode_rgb(b"P5 2 1 255 " + bytes([0, 128]), "two.pgm").tolist()
    [[[0, 0, 0], [128, 128, 128]]]

    Raises BadImage if it is cut short, absurdly large, of another format, has pixels of 32 bits, for which there is no
    agreed white, or, where it is to be `intact`, a JPEG of which libjpeg makes up a part.
    """
    # Pillow warns of damaged metadata and of large sizes; the pixels and `MAX_PIXELS` decide here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage(name, f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
                with _one_at_a_time(image.width * image.height):
                    _scale_transparent_color(image)
                    image.load()
                    if intact and isinstance(image, JpegImagePlugin.JpegImageFile) and (damage := _damage(data)):
                        raise BadImage(name, f"is damaged ({damage})")
                    return _upright_rgb(name, image)
        except BadImage:
            raise
        except Image.DecompressionBombError as error:
            raise BadImage(name, f"has more than {MAX_PIXELS:,} pixels") from error
        except UnidentifiedImageError as error:
            raise BadImage(name, _unread(data)) from error
        except Exception as error:  # Pillow's readers meet strangers' bytes with exceptions of every kind
            raise BadImage(name, f"cannot be read ({_one_line(error)})") from error


def decode(encoded: Sequence[bytes], crops: Sequence[Crops], side: int) -> list[Squares | None]:
    """Refuse every photograph: the reference reads those."""
    return [None] * len(encoded)


def squares(data: bytes, name: Path | str, crops: Crops, side: int, intact: bool = False) -> Squares | BadImage:
    """Cut the squares out of one photograph, or say what is wrong with it."""
    try:
        pixels = decode_rgb(data, name, intact)
    except BadImage as bad:
        return bad
    return Squares.of(pixels, crops, side)


def orientation(image: Image.Image) -> int:
    """Read the EXIF orientation: 1 (upright) where there is none, it cannot be read, or none of the eight is meant."""
    try:
        turn = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata says nothing about the orientation; the pixels are fine
        return 1
    return turn if turn in _AS_STORED else 1


def _upright_rgb(name: Path | str, image: Image.Image) -> NDArray[np.uint8]:
    turn = orientation(image)
    size = (image.width, image.height) if turn >= 5 else (image.height, image.width)
    upright = np.empty((*size, 3), np.uint8)
    stored = _AS_STORED.get(turn, lambda upright: upright)(upright)
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        stored[top:bottom] = _to_rgb(name, image.crop((0, top, image.width, bottom)), image)
    return upright


def _scale_transparent_color(image: Image.Image) -> None:
    """Bring a PNG's transparent colour to the depth that its pixels are decoded to: Pillow leaves it as in the file."""
    color = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or color is None:
        return
    raw = image.tile[0][3]
    if raw in ("L;2", "L;4"):
        image.info["transparency"] = color * {"L;2": 85, "L;4": 17}[raw]
    elif raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in color)


def _to_rgb(name: Path | str, image: Image.Image, whole: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and whole.format == "PPM"):
        return Image.fromarray(_upper_bits(np.asarray(image), whole)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImage(name, "has pixels of 32 bits, or signed ones, whose white nobody has agreed on (save it with 8)")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _upper_bits(grey: NDArray[np.integer], whole: Image.Image) -> NDArray[np.uint8]:
    """Keep the upper eight bits of grey values, zero black and what is transparent white.

    Pillow gives a TIFF's values as they are in the file: of 12 bits, too, and where zero is white.
    """
    bits, zero_is_white = 16, False
    if isinstance(whole, TiffImagePlugin.TiffImageFile):
        bits = int(whole.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (bits,))[0])
        zero_is_white = whole.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    upper = (grey >> (bits - 8)).astype(np.uint8)
    upper = ~upper if zero_is_white else upper
    clear = whole.info.get("transparency")
    return upper if clear is None else np.where(grey == clear, np.uint8(255), upper)


@contextmanager
def _one_at_a_time(pixels: int) -> Iterator[None]:
    """Decode large pictures one at a time across processes and threads; the lock is on this module's file."""
    if pixels < LARGE:
        yield
        return
    with Path(__file__).open("rb") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _damage(data: bytes) -> str:
    """Tell what libjpeg finds damaged in a JPEG, where it makes up pixels and Pillow says nothing; else nothing.

    Bytes too many are damage as well, mostly: behind it codes are read at other places. Padding at the end is none, nor
    is anything before the codes.
    """
    try:
        _, _, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return ""
    try:
        as_stored = "CMYK" if colors in ("CMYK", "YCCK") else "Gray"
        simplejpeg.decode_jpeg(data, as_stored, min_height=1, min_width=1)  # all of its codes, an eighth of the pixels
    except ValueError as error:
        padding = re.search(r"(\d+) extraneous bytes before marker 0xd9", said := str(error))
        end = data.find(b"\xff\xd9", _first_scan(data))  # in headers are thumbnails' ends, behind it others'
        if padding and len(set(data[end - int(padding[1]) : end])) == 1:
            return ""
        return said if any(words in said for words in DAMAGED) else ""
    return ""


def _first_scan(data: bytes) -> int:
    at = 2
    while at < len(data) and data[at + 1 : at + 2] != b"\xda":
        at += 1 if data[at + 1 : at + 2] == b"\xff" else 2 + int.from_bytes(data[at + 2 : at + 4])
    return at


def _unread(data: bytes) -> str:
    """Say what a file is that none of Pillow's readers takes."""
    for name, starts in UNREAD.items():
        if any(re.match(start, data, re.DOTALL) for start in starts):
            return f"is in the format {name}, whatever its name ends in, which is not read (convert it to JPEG or PNG)"
    return f"is not a picture in one of the formats {', '.join(FORMATS)}"


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
