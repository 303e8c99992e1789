"""Triton kernels of batch assembly."""

import triton
import triton.language as tl


@triton.jit
def assemble(
    images_ptr, rows_ptr, batch_ptr, count, H, W,
    CHANNELS_LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """BLOCK neighbours in memory of one image of the batch. Grid (images, blocks of an image)."""
    i = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    if CHANNELS_LAST:
        pixel, channel = i // 3, i % 3
    else:
        pixel, channel = i % (H * W), i // (H * W)
    row = tl.load(rows_ptr + tl.program_id(0))
    stored = (row >= 0) & (row < count)
    size = 3 * H * W
    u8_at = images_ptr + row.to(tl.int64) * size + pixel * 3 + channel
    u8 = tl.load(u8_at, mask=i < tl.where(stored, size, 0), other=0)
    x = tl.where(stored, u8.to(tl.float32) * (2 / 255) - 1, float("nan"))
    tl.store(batch_ptr + tl.program_id(0).to(tl.int64) * size + i, x.to(batch_ptr.dtype.element_ty), mask=i < size)
