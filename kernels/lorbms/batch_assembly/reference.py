"""A batch out of a tensor of images: a gather, and arithmetic."""

import torch
from torch import Tensor


def assemble_batch(images: Tensor, rows: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """`x = u8 * 2/255 - 1` of images by their row, (*rows, 3, H, W); documented at the package's function."""
    picked = images.index_select(0, rows.flatten()).view(*rows.shape, *images.shape[1:])
    batch = picked.float().mul_(2 / 255).sub_(1).to(dtype).movedim(-1, -3)
    return batch if channels_last else batch.contiguous()
