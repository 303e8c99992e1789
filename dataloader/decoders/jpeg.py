"""The JPEGs that the fast decoders take."""

import io

import simplejpeg
from PIL import Image

from lorbms_fast.dataloader.decoders.reference import MAX_PIXELS, orientation

COLORS = ("YCbCr", "Gray")
"""Color spaces of JPEG that mean the same to libjpeg-turbo, Pillow and DALI."""


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Read (width, height) of an upright JPEG in YCbCr or grey; None for anything else: the reference reads that."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    if colors not in COLORS or width * height > MAX_PIXELS or not _is_upright(data):
        return None
    return width, height


def _is_upright(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return orientation(image) == 1
    except Exception:  # what Pillow does not open is the reference's to refuse
        return False
