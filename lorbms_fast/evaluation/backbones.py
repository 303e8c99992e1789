"""Parts of networks whose features a linear classifier reads (Table 4.3): images (N, 3, S, S) in [-1, 1] to (N, D)."""

from collections import OrderedDict

from torch import Tensor, nn

from lorbms_fast.evaluation.alexnet import AlexNetConvs
from lorbms_fast.models.discriminator import Discriminator


def encoder_backbone(encoder: nn.Module) -> nn.Module:
    """Give the encoder's code; 96x96 pixels give 3x3x192 = 1,728 numbers."""
    return nn.Sequential(OrderedDict(encoder=encoder, flat=nn.Flatten()))


def alexnet_backbone(convs: AlexNetConvs) -> nn.Module:
    """Give AlexNet's conv5; 96x96 pixels give 4x4x256 = 4,096 numbers."""
    return nn.Sequential(OrderedDict(convs=convs, flat=nn.Flatten()))


class DiscriminatorBackbone(nn.Module):
    """The discriminator's maps before its last layer; 96x96 pixels give 6x6x336 = 12,096 numbers."""

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features."""
        return self.discriminator.features(images).flatten(1)
