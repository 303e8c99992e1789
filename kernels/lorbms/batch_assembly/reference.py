"""A batch out of a tensor of images, image by image."""

import torch
from torch import Tensor


def assemble_batch(
    images: Tensor, rows: Tensor, flip: Tensor | None, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    """Pick images by their row and bring them to [-1, 1]: `x = u8 * 2/255 - 1`.

    Args:
        images: the store, uint8 (count, H, W, 3).
        rows: which images, int64 of any shape.
        flip: bool of rows' shape, True where an image is to be mirrored left to right; None for none.
        dtype: floating point, of the result.
        channels_last: let the result's channels be neighbours in memory.

    Returns:
        (*rows, 3, H, W).
    """
    batch = torch.stack([images[row] for row in rows.flatten().tolist()]).float() * (2 / 255) - 1
    if flip is not None:
        batch = torch.stack([x.flip(1) if mirrored else x for x, mirrored in zip(batch, flip.flatten(), strict=True)])
    batch = batch.to(dtype).movedim(-1, -3).unflatten(0, rows.shape)
    return batch if channels_last else batch.contiguous()
