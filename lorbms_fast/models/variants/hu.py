"""The parent of the method: the mixing autoencoder of Hu et al., "Disentangling Factors of Variation by Mixing Them".

Two images, a random mask over the chunks of a code that has no place in the image, unmixing back to the first image,
an adversarial loss on the mixed one, and a classifier that says of each chunk from which of the two images it came.
The published program for Sprites (github.com/HuQyang/Disentangling-Factors-of-Variation-by-Mixing-Them) has 8 chunks
of 64, weights 10 for every reconstruction, 1 for the adversarial loss and 1 for the classifier, one learning rate for
all, and instance norm. What is ours: sizes follow the configuration, discriminator and AlexNet are the thesis's, and so
is L_rec: an L1 norm of two terms, where the program squares differences and has a third for the other image. Its mask
is one for the whole batch, ours one a sample.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lorbms_fast.config import INSTANCE_NORM_EPS, ModelConfig, TrainConfig
from lorbms_fast.kernels import instance_norm_relu, spectral_norm
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.models.initial_values import Rule, normal

INITIAL_VALUES: dict[str, Rule] = {r"dec\.(fc|conv\d)\.weight": normal(0, 0.02)}
LAYERS = 4


def settings(config: TrainConfig) -> TrainConfig:
    """Set eight chunks, halves of the batch, weights 10, 1, 1, and one learning rate."""
    return replace(
        config,
        model=replace(config.model, tiles=8, chunk=-(-config.model.chunk // 3)),
        loss=replace(config.loss, rec=10.0, adv=1.0, cls=1.0),
        mixing=replace(config.mixing, candidates="halves", tau=None),
        optim=replace(config.optim, discriminator_lr=config.optim.generator_lr),
    )


def _widths(config: ModelConfig) -> list[int]:
    """Maps of the convolutions from the image on: 64, 128, 256, 512."""
    return [4 * config.stem // 3 * 2**i for i in range(LAYERS)]


class Encoder(nn.Module):
    """Four 4x4 convolutions of stride 2 and a fully connected layer (DCGAN's discriminator)."""

    sees_everything = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels, self.chunks, self.image_size = 3, config.tiles, config.image_size
        for i, width in enumerate(_widths(config), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(channels, width, 4, stride=2, padding=1))
            channels = width
        self.fc = nn.Linear(channels * (config.image_size // 2**LAYERS) ** 2, config.tiles * config.chunk)

    def forward(self, images: Tensor) -> Tensor:
        """Encode (N, 3, S, S) images in [-1, 1] as (N, chunks, chunk)."""
        x = images
        for i in range(1, LAYERS + 1):
            x = instance_norm_relu(self.get_submodule(f"conv{i}")(x), INSTANCE_NORM_EPS)
        code: Tensor = self.fc(x.flatten(1))
        return code.unflatten(1, (self.chunks, -1))


class Decoder(nn.Module):
    """The encoder's mirror image with transposed convolutions (DCGAN's generator); no spectral norm."""

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__()
        widths = _widths(config)
        self.side = config.image_size // 2**LAYERS
        self.fc = nn.Linear(config.tiles * config.chunk, widths[-1] * self.side**2)
        for i, (channels, width) in enumerate(zip(reversed(widths), [*reversed(widths[:-1]), 3], strict=True), start=1):
            self.add_module(f"conv{i}", nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1))

    def forward(self, f: Tensor) -> Tensor:
        """Decode (N, chunks, chunk) as (N, 3, S, S) images in [-1, 1]."""
        x = self.fc(f.flatten(1)).unflatten(1, (-1, self.side, self.side))
        for i in range(1, LAYERS + 1):
            x = self.get_submodule(f"conv{i}")(instance_norm_relu(x, INSTANCE_NORM_EPS))
        return torch.tanh(x)
