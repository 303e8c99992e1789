"""A batch out of a tensor of images in one launch: bytes in, the network's layout out."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lorbms_fast.kernels.operation import operation

BLOCK = 1024


@triton.jit
def assemble_program(
    images_ptr,
    rows_ptr,
    flip_ptr,
    batch_ptr,
    count,
    H,
    W,
    CHANNELS_LAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK neighbours in memory of one image of the batch. Grid (images, blocks of an image)."""
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if CHANNELS_LAST:
        pixel, channel = i // 3, i % 3
    else:
        pixel, channel = i % (H * W), i // (H * W)
    if flip_ptr is not None:
        mirrored = tl.load(flip_ptr + tl.program_id(0)) != 0
        column = pixel % W
        pixel = tl.where(mirrored, pixel - column + (W - 1 - column), pixel)
    row = tl.load(rows_ptr + tl.program_id(0))
    stored = (row >= 0) & (row < count)
    size = 3 * H * W
    u8_at = images_ptr + row.to(tl.int64) * size + pixel * 3 + channel
    u8 = tl.load(u8_at, mask=i < tl.where(stored, size, 0), other=0)
    x = tl.where(stored, u8.to(tl.float32) * (2 / 255) - 1, float("nan"))
    tl.store(batch_ptr + tl.program_id(0).to(tl.int64) * size + i, x.to(batch_ptr.dtype.element_ty), mask=i < size)


@operation("assemble_batch")
def assemble_batch(
    images: Tensor, rows: Tensor, flip: Tensor | None, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    """(*rows, 3, H, W); documented at the definition."""
    count, H, W, _ = images.shape
    batch = _empty_batch(images, rows, dtype, channels_last)
    block = min(BLOCK, triton.next_power_of_2(3 * H * W))
    assemble_program[(rows.numel(), triton.cdiv(3 * H * W, block))](
        images.contiguous(),
        rows.contiguous(),
        None if flip is None else flip.contiguous(),
        batch,
        count,
        H,
        W,
        channels_last,
        block,
    )
    return batch


def _empty_batch(images: Tensor, rows: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    _, H, W, _ = images.shape
    if channels_last:
        return images.new_empty((*rows.shape, H, W, 3), dtype=dtype).movedim(-1, -3)
    return images.new_empty((*rows.shape, 3, H, W), dtype=dtype)


@assemble_batch.register_fake
def _(images, rows, flip, dtype, channels_last):
    return _empty_batch(images, rows, dtype, channels_last)
