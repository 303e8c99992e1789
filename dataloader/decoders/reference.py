"""The reference decoder: Pillow, every pixel, whatever a folder of photographs may hold."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from lorbms_fast.dataloader.decoders.interface import Crops, Squares
from lorbms_fast.dataloader.photograph import BadImage, Place

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of the formats that are read. Others are not tried: some of Pillow's readers start other programs."""
MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a file of some kilobytes can claim any size."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A photograph of a file, as `decode_rgb` gives it."""
    return decode_rgb(Place(path.name).read(path.parent), path)


def decode_rgb(data: bytes, name: Path | str) -> NDArray[np.uint8]:
    """A photograph as uint8 (H, W, 3), turned upright as its EXIF orientation says.

    Greyscale is repeated, CMYK and palettes are converted, 16 bits lose their lower 8, transparency is laid over white;
    of an animation the first picture is read. Colour profiles are ignored.

    Args:
        data: the encoded photograph.
        name: what to call it in messages.

    Raises:
        BadImage: it is cut short, damaged, absurdly large, of another format, or has pixels of 32 bits, for which
            there is no agreed white.
    """
    # Pillow warns of damaged metadata and of large sizes; the pixels and `MAX_PIXELS` decide here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage(name, f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
                image.load()
                return np.array(_upright(_to_rgb(name, image)))
        except BadImage:
            raise
        except Image.DecompressionBombError as error:
            raise BadImage(name, f"has more than {MAX_PIXELS:,} pixels") from error
        except UnidentifiedImageError as error:
            raise BadImage(name, f"is not a picture in one of the formats {', '.join(FORMATS)}") from error
        except Exception as error:  # Pillow's readers meet strangers' bytes with exceptions of every kind
            raise BadImage(name, f"cannot be read ({_one_line(error)})") from error


def decode(encoded: Sequence[bytes], crops: Sequence[Crops], side: int) -> list[Squares | None]:
    """Leaves every photograph to the reference: `squares`."""
    return [None] * len(encoded)


def squares(data: bytes, name: Path | str, crops: Crops, side: int) -> Squares | BadImage:
    """Squares of one photograph, or what is wrong with it."""
    try:
        pixels = decode_rgb(data, name)
    except BadImage as bad:
        return bad
    return Squares.of(pixels, crops, side)


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or it cannot be read."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged metadata says nothing about the orientation; the pixels are fine
        return 1


def _to_rgb(name: Path | str, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImage(name, "has pixels of 32 bits")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
