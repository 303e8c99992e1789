"""Color layout and oriented gradients: features without any weights."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import rgb2gray, rgb2lab
from skimage.feature import hog

from lorbms_fast.dataloader.resize import area_resize
from lorbms_fast.similarity.features.extractor import Extractor
from lorbms_fast.similarity.quadrants import quadrant

SIDE, COLOR_CELLS = 128, 4
COLOR_WEIGHT = 1 / 50
"""Lab spans about a hundred units and a normalized gradient histogram one: this makes the two count alike."""


def load(weights: Path | None, device: torch.device) -> Extractor:
    """Make the extractor of 4 x 4 mean Lab colors and a histogram of oriented gradients, on the CPU."""

    def extract(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([[_of_quadrant(np.ascontiguousarray(quadrant(one, q))) for q in range(4)] for one in images])

    return Extractor(SIDE, extract)


def _of_quadrant(part: NDArray[np.uint8]) -> NDArray[np.float32]:
    colors = rgb2lab(area_resize(part, COLOR_CELLS)).ravel() * COLOR_WEIGHT
    gradients = hog(rgb2gray(part), orientations=9, pixels_per_cell=(16, 16), cells_per_block=(2, 2))
    return np.concatenate([colors, gradients]).astype(np.float32)
