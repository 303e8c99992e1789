"""Asynchronous copies of metrics from the device to the host."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from lorbms_fast.progress import tqdm

T = TypeVar("T")
PATIENCE = 1800.0
"""Seconds that a GPU may take until numbers arrive: as long as processes wait for one another."""


class HostCopy:
    """An asynchronous copy of a tensor's present values to the host; only reading it too early waits."""

    def __init__(self, numbers: Tensor) -> None:
        self._host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=numbers.is_cuda)
        self._host.copy_(numbers, non_blocking=True)
        self._sent = torch.cuda.current_stream(numbers.device).record_event() if numbers.is_cuda else None

    def here(self) -> bool:
        """Tell whether the values have arrived."""
        return self._sent is None or self._sent.query()

    def read(self) -> list[Any]:
        """Return the values, after waiting for them if need be; lists of lists for more than one dimension."""
        if self._sent is not None:
            _wait(self._sent.query, PATIENCE)
        return self._host.tolist()


def _wait(past: Callable[[], bool], patience: float) -> None:
    """Wait, and hear signals, as nobody does inside CUDA's own wait; end the process where a kernel hangs."""
    late = time.monotonic() + patience
    while not past():
        if time.monotonic() > late:
            tqdm.write(
                f"the GPU has not come to an end in {patience / 60:.0f} minutes, a kernel hangs: the run ends here and "
                "its last checkpoint is whole; go on from it with `train --resume RUN --kernels torch`",
                file=sys.stderr,
            )
            sys.stderr.flush()
            os._exit(1)  # an orderly end would wait for the kernel
        time.sleep(2e-4)


class AsyncMetrics(Generic[T]):
    """A queue of iterations' metrics on their way to the host."""

    def __init__(self) -> None:
        self._under_way: deque[tuple[T, HostCopy]] = deque()

    def send(self, of: T, numbers: Tensor) -> None:
        """Start the copy of the numbers of an iteration, or of several."""
        self._under_way.append((of, HostCopy(numbers)))

    def arrived(self, left: int = 1) -> Iterator[tuple[T, list[Any]]]:
        """Yield iterations and their numbers, each once: all that have arrived, once only `left` have not."""
        while self._under_way and (len(self._under_way) > left or self._under_way[0][1].here()):
            of, reading = self._under_way.popleft()
            yield of, reading.read()
