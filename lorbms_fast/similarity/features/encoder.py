"""A LORBMS encoder's own chunks as features."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.errors import UserError
from lorbms_fast.run import Run, load_networks
from lorbms_fast.similarity.features.extractor import Extractor


def load(weights: Path | None, device: torch.device) -> Extractor:
    """Load the encoder of the run in the folder `weights`: chunk i of the image's code is quadrant i's feature.

    Raises UserError where quadrants are not a chunk each.
    """
    assert weights is not None  # `load_extractor` has seen to it
    model = Run.open(weights).config.model
    if (model.tiles, model.chunks) != (4, 4):
        raise UserError(f"{weights} has other codes than a chunk for each quadrant: name a run of 64 px and 4 tiles")
    networks = load_networks(weights, device)

    @torch.inference_mode()
    def extract(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        codes = networks.enc(to_float_nchw(images).to(device))
        return codes.float().cpu().numpy()

    return Extractor(model.image_size, extract)
