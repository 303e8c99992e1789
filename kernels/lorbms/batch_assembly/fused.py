"""A batch out of a tensor of images: one loop where it lies in memory, else the definition."""

import torch
from torch import Tensor

from lorbms_fast.kernels.lorbms.batch_assembly import cpp, reference


def assemble_batch(images: Tensor, rows: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """(*rows, 3, H, W); documented at the package's function."""
    by_loop = images.is_cpu and images.is_contiguous() and cpp.runs(dtype)
    return (cpp if by_loop else reference).assemble_batch(images, rows, dtype, channels_last)
