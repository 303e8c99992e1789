"""Out-of-memory errors, told on one line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lorbms_fast.errors import UserError

_WANTS = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc")
"""Words by which a RuntimeError says that a CPU has no memory left."""


@contextmanager
def out_of_memory_told(batch_size: int, device: torch.device) -> Iterator[None]:
    """Turn running out of memory inside the block, which builds and trains networks, into a UserError of one line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_want_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # and the tensors that they hold
        raise UserError(
            f"--batch-size {batch_size} does not fit in the memory of {device}: lower it, or choose a smaller --preset "
            "or model; the last checkpoint is as it was"
        ) from error


def is_want_of_memory(error: Exception) -> bool:
    """Tell whether an exception means that memory ran out, on whichever device."""
    told = isinstance(error, RuntimeError) and any(want in str(error) for want in _WANTS)
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)
