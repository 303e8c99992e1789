"""A discriminator that judges the whole image and a random patch of it (Appendix D.7; after Iizuka et al., 2017)."""

import torch
from torch import Generator, Tensor, nn

from lorbms_fast.config import ModelConfig
from lorbms_fast.dataloader import counter_rng
from lorbms_fast.kernels import spectral_norm
from lorbms_fast.kernels.spectral_norm import Normalize
from lorbms_fast.models import discriminator
from lorbms_fast.models.initial_values import Rule


def _anywhere(values: Tensor, generator: Generator) -> Tensor:
    """A random integer: where the run's random numbers begin."""
    return values.random_(generator=generator)


INITIAL_VALUES: dict[str, Rule] = {r"dsc\.drawn": _anywhere}


class Discriminator(nn.Module):
    """One logit an image, from a global network on all of it and a local one on a random patch of half its side.

    Both are the PatchGAN's convolutions, averaged over positions, put side by side and weighed by one linear layer.
    A patch's place is a random number of `drawn`, the number of patches before it. As a buffer it begins where the
    run's seed says and is part of every checkpoint, so a resumed run draws the same places. It moves on with passes
    that record gradients; looking at a network leaves it alone.
    """

    sees_everything = True
    drawn: Tensor

    def __init__(self, config: ModelConfig, normalize: Normalize = spectral_norm) -> None:
        super().__init__()
        self.whole = _Convolutions(config, normalize)
        self.local = _Convolutions(config, normalize)
        self.weigh = nn.Linear(2 * 8 * config.discriminator_width, 1)
        self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))

    def features(self, images: Tensor) -> Tensor:
        """Compute the global network's (N, 8 width, S/16, S/16) maps from (N, 3, S, S) images in [-1, 1]."""
        return self.whole.features(images)

    def forward(self, images: Tensor) -> Tensor:
        """Compute (N, 1, 1, 1) logits, positive for real, from (N, 3, S, S) images in [-1, 1]."""
        patches = patches_at(images, self.corners(len(images), images.shape[-1]))
        if self.training and torch.is_grad_enabled():
            self.drawn += len(images)
        maps = [self.features(images), self.local.features(patches)]
        logits: Tensor = self.weigh(torch.cat([m.mean((2, 3)) for m in maps], dim=1))
        return logits[..., None, None]

    def corners(self, count: int, side: int) -> Tensor:
        """Draw the top left corners of the next patches in images of a side: (2, count) int64, rows and columns."""
        number = self.drawn + torch.arange(count, device=self.drawn.device)
        places = side - side // 2 + 1
        return torch.stack([counter_rng.below(places, counter_rng.key(axis), number) for axis in (0, 1)])


def patches_at(images: Tensor, corners: Tensor) -> Tensor:
    """Cut a patch (N, C, S/2, S/2) out of every image (N, C, S, S).

    `corners` (2, N) int64 are row and column of the patches' top left pixels.

    >>> patches_at(torch.arange(16.0).view(1, 1, 4, 4), torch.tensor([[1], [2]]))
    tensor([[[[ 6.,  7.],
              [10., 11.]]]])
    """
    along = torch.arange(images.shape[-1] // 2, device=images.device)
    rows, columns = corners[..., None] + along
    every = torch.arange(len(images), device=images.device)
    return images[every[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class _Convolutions(discriminator.Discriminator):
    """The PatchGAN without its last convolution."""

    def __init__(self, config: ModelConfig, normalize: Normalize) -> None:
        super().__init__(config, normalize)
        del self.conv5
