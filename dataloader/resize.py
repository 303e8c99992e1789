"""Area resampling, as the thesis feeds photographs to the networks (Section 4.1)."""

import cv2
import numpy as np
from numpy.typing import NDArray


def area_resize(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resample uint8 (H, W, C) to (side, side, C).

    Shrinking averages over each output pixel's area in the input, parts of input pixels counting by the part covered,
    and rounds; the result is within one grey level of that definition. Where an axis has fewer than `side` pixels it
    is enlarged by linear interpolation instead: areas smaller than a pixel would give blocks.
    """
    height, width = image.shape[:2]
    shrunk = _resize(image, min(width, side), min(height, side), cv2.INTER_AREA)
    return _resize(shrunk, side, side, cv2.INTER_LINEAR)


def _resize(image: NDArray[np.uint8], width: int, height: int, method: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return image
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, image.shape[2])
