"""Quadrants of square images."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.neighbour_table import QUADRANTS


def quadrant(images: NDArray[np.uint8], q: int) -> NDArray[np.uint8]:
    """View quadrant q (0 to 3: top left, top right, bottom left, bottom right) of (..., S, S, 3)."""
    half = images.shape[-2] // 2
    top, left = divmod(q, 2)
    return images[..., top * half : (top + 1) * half, left * half : (left + 1) * half, :]


def enlarged_quadrants(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Enlarge a square image's four quadrants to `side` by linear interpolation: (4, side, side, 3)."""
    parts = [cv2.resize(quadrant(image, q), (side, side), interpolation=cv2.INTER_LINEAR) for q in range(QUADRANTS)]
    return np.stack(parts).astype(np.uint8)
