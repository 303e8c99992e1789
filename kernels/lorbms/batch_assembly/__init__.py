"""Batches out of a data set that lies in memory as one tensor."""

import torch
from torch import Tensor

from lorbms_fast.kernels._common.dispatch import HAS_TRITON, Impl, select_impl
from lorbms_fast.kernels._common.operation import operation
from lorbms_fast.kernels._common.shapes import check_dtype, misfit
from lorbms_fast.kernels.lorbms.batch_assembly import fused, reference

if HAS_TRITON:
    from lorbms_fast.kernels.lorbms.batch_assembly.triton import ops as triton_ops


@operation()
def assemble_batch(
    images: Tensor, rows: Tensor, dtype: torch.dtype = torch.float32, channels_last: bool = False,
    impl: Impl | None = None,
) -> Tensor:  # fmt: skip
    """Pick images by their row and bring them to [-1, 1]: `x = u8 * 2/255 - 1`.

    >>> store = torch.randint(0, 256, (10, 8, 8, 3), dtype=torch.uint8)
    >>> assemble_batch(store, torch.tensor([[0, 1], [2, 9]])).shape
    torch.Size([2, 2, 3, 8, 8])

    A reference and its four candidates are one call with rows (5, N). The images are the store, uint8 (count, H, W, 3),
    contiguous; rows, of any shape, lie on its device. A row that the store has not raises IndexError, but on CUDA,
    where looking would make the host wait: there its image is all NaN.

    Returns (*rows, 3, H, W) of a floating point dtype, if asked for in channels_last. Not differentiable.
    Raises ValueError if the images have another shape, or images or rows another dtype.
    """
    if images.dim() != 4 or images.shape[3] != 3:
        raise misfit("images", images, "(count, H, W, 3)")
    check_dtype("images", images, torch.uint8)
    check_dtype("rows", rows, torch.int64, torch.int32)
    if not len(images) and rows.numel():
        raise IndexError(f"{rows.numel()} rows of a store without images")
    form = select_impl(impl, torch.empty((), dtype=dtype, device=images.device))  # bytes in, but the result decides
    if form == "triton":
        return triton_ops.assemble_batch(images, rows, dtype, channels_last)
    return (reference if form == "reference" else fused).assemble_batch(images, rows, dtype, channels_last)
