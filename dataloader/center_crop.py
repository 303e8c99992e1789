"""The central square of a photograph, as the networks take it."""

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.resize import area_resize


def center_crop(photograph: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Cut the largest central square out of uint8 (H, W, 3) and resample it to (side, side, 3).

    >>> center_crop(np.arange(60, dtype=np.uint8).reshape(4, 5, 3), 2)[..., 0].tolist()
    [[9, 15], [39, 45]]
    """
    height, width, _ = photograph.shape
    square = min(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    return area_resize(photograph[top : top + square, left : left + square], side)
