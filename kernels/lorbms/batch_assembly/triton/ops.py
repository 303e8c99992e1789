"""A batch out of a tensor of images in one launch: bytes in, the network's layout out."""

import torch
import triton
from torch import Tensor

from lorbms_fast.kernels._common.custom_op import triton_op
from lorbms_fast.kernels.lorbms.batch_assembly.triton import kernels

BLOCK = 1024


@triton_op("assemble_batch")
def assemble_batch(images: Tensor, rows: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """(*rows, 3, H, W); documented at the package's function."""
    count, H, W, _ = images.shape
    batch = _empty_batch(images, rows, dtype, channels_last)
    block = min(BLOCK, triton.next_power_of_2(3 * H * W))
    kernels.assemble[(rows.numel(), triton.cdiv(3 * H * W, block))](
        images.contiguous(), rows.contiguous(), batch, count, H, W, channels_last, block
    )
    return batch


@assemble_batch.register_fake
def _empty_batch(images: Tensor, rows: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    _, H, W, _ = images.shape
    if channels_last:
        return images.new_empty((*rows.shape, H, W, 3), dtype=dtype).movedim(-1, -3)
    return images.new_empty((*rows.shape, 3, H, W), dtype=dtype)
