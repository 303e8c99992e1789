"""AlexNet as DeepCluster trained it (Caron et al., 2018): the thesis's features."""

from pathlib import Path

import torch
from torch import Tensor, nn

from lorbms_fast.errors import UserError
from lorbms_fast.similarity.features.extractor import Extractor, imagenet_normalized, of_quadrants
from lorbms_fast.weights import fill, read_checkpoint


class DeepClusterAlexNet(nn.Module):
    """AlexNet from ImageNet-normalized (B, 3, 224, 224) to (B, 4096), its parameters named as in the published file."""

    def __init__(self) -> None:
        super().__init__()
        self.sobel = nn.Sequential(
            nn.Conv2d(3, 1, 1),  # to grey
            nn.Conv2d(1, 2, 3, padding=1),  # horizontal and vertical gradient
        )
        self.features = nn.Sequential(
            *_conv(2, 96, 11, stride=4, padding=2),
            nn.MaxPool2d(3, 2),
            *_conv(96, 256, 5, padding=2),
            nn.MaxPool2d(3, 2),
            *_conv(256, 384, 3, padding=1),
            *_conv(384, 384, 3, padding=1),
            *_conv(384, 256, 3, padding=1),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4096, 4096)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features before the final ReLU."""
        return self.classifier(self.features(self.sobel(x)).flatten(1))


def load(weights: Path | None, device: torch.device) -> Extractor:
    """Load the published `checkpoint.pth.tar`, 4,096 numbers a quadrant; UserError where the file is another."""
    assert weights is not None  # `load_extractor` has seen to it
    checkpoint = read_checkpoint(weights)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{weights} has no 'state_dict': it is not DeepCluster's checkpoint.pth.tar")
    # The file was saved from a model whose features alone were wrapped for several GPUs.
    state = {name.replace("features.module.", "features."): value for name, value in checkpoint["state_dict"].items()}
    network = DeepClusterAlexNet()
    fill(network, state, weights)
    network = network.to(device).eval()
    return of_quadrants(lambda x: network(imagenet_normalized(x)), device)


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
