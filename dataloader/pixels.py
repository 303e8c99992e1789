"""uint8 pixels to the networks' floats, and back."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def to_float_nchw(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """Convert uint8 (..., H, W, 3) to float32 (..., 3, H, W) in [-1, 1]: `x = u8 * 2/255 - 1`, on the tensor's device.

    >>> to_float_nchw(np.array([[[0, 255, 0]]], np.uint8)).flatten().tolist()
    [-1.0, 1.0, -1.0]
    """
    return torch.as_tensor(images).movedim(-1, -3).to(torch.float32).mul_(2 / 255).sub_(1)


def to_uint8_nhwc(images: Tensor) -> NDArray[np.uint8]:
    """Invert `to_float_nchw` and round; values beyond [-1, 1] are cut off.

    >>> to_uint8_nhwc(torch.tensor([-1.0, 0.0, 3.0]).view(3, 1, 1)).tolist()
    [[[0, 128, 255]]]
    """
    pixels = ((images.detach().float() + 1) * (255 / 2)).round().clamp(0, 255).to(torch.uint8)
    return pixels.movedim(-3, -1).cpu().numpy()
