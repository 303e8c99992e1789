"""A batch out of a tensor of images: one loop where it lies in memory, else a gather and arithmetic in place."""

import torch
from torch import Tensor

from lorbms_fast.kernels.lorbms.batch_assembly import cpp


def assemble_batch(
    images: Tensor, rows: Tensor, flip: Tensor | None, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    """(*rows, 3, H, W); documented at the package's function."""
    if images.is_cpu and images.is_contiguous() and cpp.runs(dtype):
        return cpp.assemble_batch(images, rows, flip, dtype, channels_last)
    picked = images.index_select(0, rows.flatten())
    if flip is not None:
        picked = torch.where(flip.flatten()[:, None, None, None], picked.flip(2), picked)
    if not channels_last:
        picked = picked.movedim(-1, -3).contiguous()
    batch = picked.float().mul_(2 / 255).sub_(1).to(dtype).unflatten(0, rows.shape)
    return batch.movedim(-1, -3) if channels_last else batch
