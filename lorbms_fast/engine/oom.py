"""When memory does not suffice: one line that says how large a batch would."""

import gc
import resource
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from lorbms_fast.config import TrainConfig
from lorbms_fast.engine.implementations import IMPLS, implementation
from lorbms_fast.engine.precision import chosen_precision
from lorbms_fast.errors import UserError
from lorbms_fast.measurement.peak import largest_batch, peak_bytes
from lorbms_fast.measurement.proc import MEMORY, bytes_told

_WANTS = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "bad_alloc")
"""What a RuntimeError says when a CPU has no memory left."""
COUNTED = (3, 6)
"""Batches whose bytes are counted: their masks replace one, two and three quadrants equally often."""
_GROUP = Path("/sys/fs/cgroup")


@contextmanager
def out_of_memory_told(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Inside the block, which builds and trains networks, want of memory becomes one line.

    The batch that would fit is estimated as `lorbms-fast plan` does it, from what was free when the block began and
    the bytes of tensors alive during an iteration of each of two small batches, which are counted on the CPU.

    Raises:
        UserError: memory did not suffice.
    """
    free = free_memory(device)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_want_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # and the tensors that they hold
        gc.collect()
        asked = f"--batch-size {config.batch_size} does not fit in the {free / 1e9:.1f} GB that were free on {device}"
        raise UserError(f"{asked}: {_advice(config, device, free)}") from error


def is_want_of_memory(error: Exception) -> bool:
    """Whether an exception says that there was no memory left, on whichever device."""
    told = isinstance(error, RuntimeError) and any(want in str(error) for want in _WANTS)
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)


def free_memory(device: torch.device) -> int:
    """Bytes that tensors can still take."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [bytes_told("MemAvailable", MEMORY)]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft - bytes_told("VmSize"))
    with suppress(OSError, ValueError):  # no control group, or one without a limit
        limits.append(int((_GROUP / "memory.max").read_text()) - int((_GROUP / "memory.current").read_text()))
    return max(0, min(limits))


def estimated_batch(config: TrainConfig, device: torch.device, free: int) -> int | None:
    """The largest batch whose tensors take nine tenths of the free bytes; None where nobody can tell."""
    if implementation(config.model, "fast") is not IMPLS["fast"]:
        return None  # the count is of the thesis's iteration
    arithmetic = chosen_precision(config.precision, device)
    return largest_batch([(n, peak_bytes(config.model, n, arithmetic)) for n in COUNTED], free)


def _advice(config: TrainConfig, device: torch.device, free: int) -> str:
    try:
        batch = estimated_batch(config, device, free)
    except (MemoryError, RuntimeError) as error:
        if not is_want_of_memory(error):
            raise
        batch = None  # it does not even suffice for counting
    if batch is None:
        return "lower it"
    if batch < 1:
        return "by an estimate not even a batch of 1 would; choose a smaller --preset or model"
    return f"by an estimate {min(batch, config.batch_size - 1)} would; the last checkpoint is as it was"
