"""The interface of feature extractors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lorbms_fast.similarity.quadrants import enlarged_quadrants

SQUARE = 224
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Extractor:
    """Features of the four quadrants of square images."""

    side: int
    """Side of the square input images in pixels."""
    extract: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """uint8 (B, side, side, 3) to float32 (B, 4, D)."""


def of_quadrants(network: Callable[[Tensor], Tensor], device: torch.device) -> Extractor:
    """Make an extractor that gives each quadrant, enlarged to the whole square's size, to a network; float16 on GPUs.

    The network takes float (B, 3, 224, 224) in 0..255 to (B, D).
    """

    @torch.inference_mode()
    def extract(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        quadrants = np.concatenate([enlarged_quadrants(image, SQUARE) for image in images])
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            features = network(torch.from_numpy(quadrants).to(device).permute(0, 3, 1, 2).float())
        return features.float().cpu().numpy().reshape(len(images), 4, -1)

    return Extractor(SQUARE, extract)


def imagenet_normalized(x: Tensor) -> Tensor:
    """Normalize (B, 3, H, W) in 0..255 by ImageNet's mean and standard deviation."""
    mean = x.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = x.new_tensor(IMAGENET_STD).view(3, 1, 1)
    return (x / 255 - mean) / std
