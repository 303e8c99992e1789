"""Pictures without headers, as STL-10 has them: only the ending of their file says what they are."""

import numpy as np
from numpy.typing import NDArray

SIDE = 96
BYTES = 3 * SIDE**2
SUFFIX = ".bin"


def planes(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """View (..., 27648) bytes as (..., 96, 96, 3): a picture is its three planes, each column by column.

    >>> planes(np.zeros((5, BYTES), np.uint8)).shape
    (5, 96, 96, 3)
    """
    return pictures.reshape(*pictures.shape[:-1], 3, SIDE, SIDE).swapaxes(-1, -3)
