"""Asynchronous copies of metrics from the device to the host."""

from collections import deque
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


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
            self._sent.synchronize()
        return self._host.tolist()


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
