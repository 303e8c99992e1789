"""Peak signal-to-noise ratio of images in [-1, 1], of what networks make and of blurs to compare it with."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLURS = (16, 8, 1)
"""Sides of the grids of single colors that pictures are blurred to."""


def psnr(made: Tensor, images: Tensor) -> Tensor:
    """Compute the PSNR of a batch of images (N, 3, S, S) in dB, a scalar: of the mean squared error over all of them.

    >>> psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.2)).item()
    20.0
    """
    return 10 * torch.log10(4 / F.mse_loss(made, images))  # images span [-1, 1]: the peak is 2


def blurred(images: Tensor, grid: int) -> Tensor:
    """Replace images (N, 3, S, S) by the mean colors of a grid of squares."""
    squares = F.adaptive_avg_pool2d(images, grid)
    return F.interpolate(squares, size=images.shape[-2:], mode="nearest-exact")


def blur_levels(images: Tensor) -> dict[str, float]:
    """Compute the PSNR of blurs of images (N, 3, S, S), by name: what a network that learned as little would reach.

    >>> list(blur_levels(torch.rand(1, 3, 64, 64)))
    ['16x16 blur', '8x8 blur', 'one color']
    """
    named = {f"{grid}x{grid} blur" if grid > 1 else "one color": grid for grid in BLURS}
    return {name: psnr(blurred(images, grid), images).item() for name, grid in named.items()}
