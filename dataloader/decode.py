"""Photographs as arrays, whatever a folder of them may hold."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from lorbms_fast.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")
"""Pillow's names of the formats that are read. Others are not tried: some of Pillow's readers start other programs."""
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Endings, in lower case, that files of these formats have."""
MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: a file of some kilobytes can claim any size."""

Image.init()  # without it Pillow does not know yet all formats that `open` is to try

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(UserError):
    """A file that cannot be read as a photograph. `path` is the file, `reason` says in a few words what is wrong."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} {reason}: replace or remove it")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type["BadImage"], tuple[Path, str]]:
        return type(self), (self.path, self.reason)


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """A photograph as uint8 (H, W, 3), turned upright as its EXIF orientation says.

    Greyscale is repeated, CMYK and palettes are converted, 16 bits lose their lower 8, transparency is laid over white;
    of an animation the first picture is read. Colour profiles are ignored.

    Raises `BadImage` when the file is missing, unreadable, cut short, damaged, absurdly large, of another format, or
    has pixels of 32 bits, for which there is no agreed white.
    """
    if not path.is_file():
        raise BadImage(path, "is not a file" if path.exists() else "is missing")
    # Pillow warns of damaged metadata and of large sizes; the pixels and `MAX_PIXELS` decide here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise BadImage(path, f"has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
                image.load()
                return np.array(_upright(_to_rgb(path, image)))
        except BadImage:
            raise
        except Image.DecompressionBombError as error:
            raise BadImage(path, f"has more than {MAX_PIXELS:,} pixels") from error
        except UnidentifiedImageError as error:
            raise BadImage(path, _unknown(path)) from error
        except Exception as error:  # Pillow's readers meet strangers' bytes with exceptions of every kind
            raise BadImage(path, f"cannot be read ({_one_line(error)})") from error


def _to_rgb(path: Path, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImage(path, "has pixels of 32 bits")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged metadata says nothing about the orientation; the pixels are fine
        return image
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _unknown(path: Path) -> str:
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    return f"is not a picture in one of the formats {', '.join(FORMATS)}"


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
