"""The JPEGs that the fast decoders take."""

import io

import simplejpeg
from PIL import Image

from lorbms_fast.dataloader.decoders.reference import MAX_PIXELS, orientation

COLORS = ("YCbCr", "Gray")
"""Color spaces of JPEG that mean the same to libjpeg-turbo, Pillow and DALI."""
START_OF_SCAN, APP1 = 0xDA, 0xE1
"""The second bytes of markers (ITU-T T.81, table B.1)."""


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
    if not _may_have_exif(data):
        return True
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return orientation(image) == 1
    except Exception:  # what Pillow does not open is the reference's to refuse
        return False


def _may_have_exif(data: bytes) -> bool:
    """Check for a segment of Exif data, or anything but segments, before the pixels."""
    at = 2
    while data[at : at + 1] == b"\xff" and len(data) > at + 4:
        if data[at + 1] == START_OF_SCAN:
            return False
        if data[at + 1] == APP1 and data.startswith(b"Exif\0\0", at + 4):
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return True
