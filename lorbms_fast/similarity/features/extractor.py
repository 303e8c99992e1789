"""What a feature extractor is."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.similarity.quadrants import enlarged_quadrants

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Extractor:
    """Features of the four quadrants of square images."""

    side: int
    """Side of the square images it wants, in pixels."""
    extract: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """uint8 (B, side, side, 3) to float32 (B, 4, D)."""


def of_quadrants(network: Callable[[Tensor], Tensor], device: torch.device, square: int = 224) -> Extractor:
    """An extractor that shows each quadrant, enlarged to the whole square's size, to a network; on a GPU in float16.

    Args:
        network: float (B, 3, square, square) in 0..255 to (B, D).
        device: where it computes.
        square: side of both the images and the enlarged quadrants.
    """

    @torch.inference_mode()
    def extract(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        quadrants = np.concatenate([enlarged_quadrants(image, square) for image in images])
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            features = network(torch.from_numpy(quadrants).to(device).permute(0, 3, 1, 2).float())
        return features.float().cpu().numpy().reshape(len(images), 4, -1)

    return Extractor(square, extract)


def imagenet_normalised(x: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..255 to ImageNet's mean and standard deviation."""
    mean = x.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = x.new_tensor(IMAGENET_STD).view(3, 1, 1)
    return (x / 255 - mean) / std
