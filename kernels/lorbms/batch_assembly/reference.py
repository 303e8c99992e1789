"""A batch out of a tensor of images, image by image."""

import torch
from torch import Tensor


def assemble_batch(
    images: Tensor, rows: Tensor, flip: Tensor | None, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    """`x = u8 * 2/255 - 1` of images by their row, (*rows, 3, H, W); documented at the package's function."""
    batch = torch.stack([images[row] for row in rows.flatten().tolist()]).float() * (2 / 255) - 1
    if flip is not None:
        batch = torch.stack([x.flip(1) if mirrored else x for x, mirrored in zip(batch, flip.flatten(), strict=True)])
    batch = batch.to(dtype).movedim(-1, -3).unflatten(0, rows.shape)
    return batch if channels_last else batch.contiguous()
