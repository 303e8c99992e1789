"""uint8 pixels to what the networks take, and back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_float_nchw(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """uint8 (..., H, W, 3) to float32 (..., 3, H, W) in [-1, 1]: `x = u8 * 2/255 - 1`, on the tensor's device."""
    return torch.as_tensor(images).movedim(-1, -3).to(torch.float32).mul_(2 / 255).sub_(1)


def to_uint8_nhwc(images: Tensor) -> NDArray[np.uint8]:
    """The inverse of `to_float_nchw`, rounded; values beyond [-1, 1] are cut off."""
    pixels = ((images.detach().float() + 1) * (255 / 2)).round().clamp(0, 255).to(torch.uint8)
    return pixels.movedim(-3, -1).cpu().numpy()
