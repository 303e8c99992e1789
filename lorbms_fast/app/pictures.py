"""Pictures between a browser and the networks: uploads in, PNG out."""

import base64
import binascii
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lorbms_fast.dataloader.decoders import BadImage, decode_rgb
from lorbms_fast.dataloader.resize import center_crop
from lorbms_fast.errors import UserError

SMALLEST = 4
"""Smallest side in pixels of an upload that shows anything."""
_PNG = "data:image/png;base64,"


def square_of(upload: bytes, side: int) -> NDArray[np.uint8]:
    """Cut the central square out of an uploaded photograph, uint8 (side, side, 3); UserError where it is no picture."""
    return center_crop(photograph_of(upload), side)


def photograph_of(upload: bytes) -> NDArray[np.uint8]:
    """Decode an uploaded photograph to uint8 (H, W, 3) by `decode_rgb`; UserError where it is none, or tiny."""
    try:
        photograph = decode_rgb(upload, "this file")
    except BadImage as error:
        raise UserError(f"this file {error.reason}: choose another picture") from error
    if min(photograph.shape[:2]) < SMALLEST:
        raise UserError(f"this file is a picture of fewer than {SMALLEST} pixels a side: choose a larger one")
    return photograph


def png(image: NDArray[np.uint8]) -> bytes:
    """Encode a uint8 (H, W, 3) image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return file.getvalue()


def png_address(image: NDArray[np.uint8]) -> str:
    """Encode a uint8 (H, W, 3) image as a `data:` address for an `<img>`."""
    return _PNG + base64.b64encode(png(image)).decode()


def of_address(address: Any, side: int) -> NDArray[np.uint8]:
    """Decode a PNG's `data:` address, such as one of `png_address`, to a square; UserError where it is none."""
    if not isinstance(address, str) or not address.startswith(_PNG):
        raise UserError("choose two pictures first")
    try:
        content = base64.b64decode(address.removeprefix(_PNG), validate=True)
    except binascii.Error as error:
        raise UserError("this picture's address is damaged: choose it again") from error
    return square_of(content, side)
