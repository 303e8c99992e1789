"""The JPEGs that the fast decoders take."""

import io

import simplejpeg
from PIL import Image

from lorbms_fast.dataloader.decoders.reference import MAX_PIXELS, orientation

COLORS = ("YCbCr", "Gray")
"""Color spaces of JPEG that mean the same to libjpeg-turbo, Pillow and DALI."""
START_OF_SCAN, APP1 = 0xDA, 0xE1
"""The second bytes of markers (ITU-T T.81, table B.1); Exif and XMP, which tell an orientation, are in APP1."""


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
    at = 2  # Pillow takes 40 microseconds to open a file: most have nothing to ask it about before the pixels
    while data[at : at + 1] == b"\xff" and len(data) > at + 4 and data[at + 1] != APP1:
        if data[at + 1] == START_OF_SCAN:
            return True
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return orientation(image) == 1
    except Exception:  # what Pillow does not open is the reference's to refuse
        return False
