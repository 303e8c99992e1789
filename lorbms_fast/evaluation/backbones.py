"""Parts of networks whose features a linear classifier reads (Table 4.3): images to (N, D)."""

from torch import Tensor, nn

from lorbms_fast.evaluation.alexnet import AlexNetConvs
from lorbms_fast.models.discriminator import Discriminator


class EncoderBackbone(nn.Module):
    """The encoder's code; 96x96 pixels give 3x3x192 = 1,728 numbers."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (N, D) from images (N, 3, S, S) in [-1, 1]."""
        codes: Tensor = self.encoder(images)
        return codes.flatten(1)


class DiscriminatorBackbone(nn.Module):
    """The discriminator's maps before its last layer; 96x96 pixels give 6x6x336 = 12,096 numbers."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (N, D) from images (N, 3, S, S) in [-1, 1]."""
        return self.discriminator.features(images).flatten(1)


class AlexNetBackbone(nn.Module):
    """AlexNet's conv5; 96x96 pixels give 4x4x256 = 4,096 numbers."""

    def __init__(self, convs: AlexNetConvs) -> None:
        super().__init__()
        self.convs = convs

    def forward(self, images: Tensor) -> Tensor:
        """Compute features (N, D) from images (N, 3, S, S) in [-1, 1]."""
        maps: Tensor = self.convs(images)
        return maps.flatten(1)
