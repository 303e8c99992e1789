"""Pictures between a browser and the networks: uploads in, PNG out."""

import base64
import binascii
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lorbms_fast.dataloader.center_crop import center_crop
from lorbms_fast.dataloader.decoders import BadImage, decode_rgb
from lorbms_fast.errors import UserError

_PNG = "data:image/png;base64,"


def square_of(upload: bytes, side: int) -> NDArray[np.uint8]:
    """The central square of an uploaded photograph, uint8 (side, side, 3).

    Raises:
        UserError: it is no picture; says why.
    """
    return center_crop(photograph_of(upload), side)


def photograph_of(upload: bytes) -> NDArray[np.uint8]:
    """An uploaded photograph, uint8 (H, W, 3), read as `decode_rgb` reads it.

    Raises:
        UserError: it is no picture; says why.
    """
    try:
        return decode_rgb(upload, "this file")
    except BadImage as error:
        raise UserError(f"this file {error.reason}: choose another picture") from error


def png(image: NDArray[np.uint8]) -> bytes:
    """A uint8 (H, W, 3) image as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="png")
    return file.getvalue()


def png_address(image: NDArray[np.uint8]) -> str:
    """A uint8 (H, W, 3) image as a `data:` address that an `<img>` shows."""
    return _PNG + base64.b64encode(png(image)).decode()


def of_address(address: Any, side: int) -> NDArray[np.uint8]:
    """The image that `png_address` made, or another picture in a `data:` address of a PNG, as a square.

    Raises:
        UserError: it is none.
    """
    if not isinstance(address, str) or not address.startswith(_PNG):
        raise UserError("choose two pictures first")
    try:
        content = base64.b64decode(address.removeprefix(_PNG), validate=True)
    except binascii.Error as error:
        raise UserError("this picture's address is damaged: choose it again") from error
    return square_of(content, side)
