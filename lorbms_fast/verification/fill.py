"""Values that depend on a name alone, so that two programs can agree on weights without exchanging files."""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def fill(name: str, shape: tuple[int, ...], scale: float, shift: float) -> NDArray[np.float32]:
    """Draw `shift + scale * z`, z standard normal from a Philox generator keyed by the CRC-32 of the prefixed name.

    Shapes are in TensorFlow's order: HWIO for convolutions, in x out for dense layers, NHWC for images.
    """
    z = np.random.Generator(np.random.Philox(key=crc32(name.encode()))).standard_normal(shape)
    return (shift + scale * z).astype(np.float32)


def fill_image(name: str, n: int) -> NDArray[np.float32]:
    """Draw test images in [-1, 1], (n, 64, 64, 3): a coarse 8x8 pattern with fine noise."""
    coarse = fill(f"{name}.coarse", (n, 8, 8, 3), 1, 0).repeat(8, axis=1).repeat(8, axis=2)
    return np.tanh(coarse + np.float32(0.2) * fill(f"{name}.fine", (n, 64, 64, 3), 1, 0))


def to_torch_layout(values: Tensor) -> Tensor:
    """Permute HWIO to torch's OIHW and in x out to out x in; vectors and u stay as they are."""
    if values.dim() == 4:
        return values.permute(3, 2, 0, 1)
    return values.T if values.dim() == 2 and values.shape[0] > 1 else values
