"""A batch as one loop in C++ over its images, wherever each of them lies."""

from collections.abc import Callable
from ctypes import c_bool, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorbms_fast.cpp import library
from lorbms_fast.kernels._common.of_torch import in_dispatch_mode

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
"""Numbers of dtypes in `loops.cpp`."""
_SOURCE = Path(__file__).with_name("loops.cpp")
_ARGUMENTS: list[Any] = [c_int, c_int, c_void_p, *[c_int64] * 3, c_bool, c_void_p]


def runs(dtype: torch.dtype) -> bool:
    """Check that there is such a loop on this machine.

    Not while torch traces, as its compiler makes loops of its own; nor while operations are recorded or counted: the
    loop is none that is seen, and a replay would have the batch of its recording.
    """
    traced = torch.compiler.is_compiling() or in_dispatch_mode()
    return dtype in DTYPES and not traced and library(_SOURCE) is not None


def assemble_batch(images: Tensor, rows: Tensor, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """(*rows, 3, H, W), or IndexError; documented at the package's function."""
    count, H, W, _ = images.shape
    if rows.numel():
        lowest, highest = int(rows.min()), int(rows.max())
        if lowest < 0 or highest >= count:
            raise IndexError(f"rows {lowest} to {highest} of {count} images")
    return assemble_at(rows.long() * (3 * H * W) + images.data_ptr(), (H, W), dtype, channels_last)


def assemble_at(
    addresses: Tensor, size: tuple[int, int], dtype: torch.dtype = torch.float32, channels_last: bool = True
) -> Tensor:
    """Assemble images that lie anywhere in memory, as in several mapped files: (*addresses.shape, 3, H, W).

    The addresses are of each image's H x W x 3 bytes, `size` being (H, W). They are read as they are: nothing is
    checked. The dtype is one of `DTYPES`.
    """
    H, W = size
    addresses = addresses.contiguous()
    image = (H, W, 3) if channels_last else (3, H, W)
    batch = torch.empty((*addresses.shape, *image), dtype=dtype, device=addresses.device)
    where, n = addresses.data_ptr(), addresses.numel()
    _loop()(DTYPES[dtype], torch.get_num_threads(), where, n, H, W, channels_last, batch.data_ptr())
    return batch.movedim(-1, -3) if channels_last else batch


def _loop() -> Callable[..., None]:
    loops = library(_SOURCE)
    assert loops is not None, "`runs` is asked first"
    loops.assemble_batch.restype, loops.assemble_batch.argtypes = None, _ARGUMENTS
    return loops.assemble_batch
