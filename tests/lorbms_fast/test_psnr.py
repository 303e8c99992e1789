"""PSNR of images and of their blurs, against numpy."""

import numpy as np
import torch

from lorbms_fast.psnr import blur_levels, psnr


def test_blurs_are_means_of_squares():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for (name, level), grid in zip(blur_levels(images).items(), (16, 8, 1), strict=True):
        side = 64 // grid
        means = images.numpy().reshape(2, 3, grid, side, grid, side).mean((3, 5))
        blur = means.repeat(side, 2).repeat(side, 3)
        assert np.isclose(level, 10 * np.log10(4 / np.mean((blur - images.numpy()) ** 2)), rtol=1e-5), name


def test_psnr_is_of_the_mean_error_over_all_images():
    images = torch.zeros(2, 3, 4, 4)
    made = images.clone()
    made[0] = 0.2
    assert np.isclose(psnr(made, images).item(), 10 * np.log10(4 / 0.02))
