"""Numbers on their way from the device to the host, which goes on meanwhile."""

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class HostCopy:
    """A tensor's values of now, sent off to the host; only who reads them before they are there has to wait."""

    def __init__(self, numbers: Tensor) -> None:
        self._host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=numbers.is_cuda)
        self._host.copy_(numbers, non_blocking=True)
        self._sent = torch.cuda.current_stream(numbers.device).record_event() if numbers.is_cuda else None

    def here(self) -> bool:
        """The values have arrived."""
        return self._sent is None or self._sent.query()

    def read(self) -> list[Any]:
        """The values, waited for if they must be; lists of lists for more than one dimension."""
        if self._sent is not None:
            self._sent.synchronize()
        values: list[Any] = self._host.tolist()
        return values


class AsyncMetrics:
    """Copies of the metrics of iterations, in their order."""

    def __init__(self) -> None:
        self._under_way: deque[tuple[int, HostCopy]] = deque()

    def send(self, iteration: int, numbers: Tensor) -> None:
        """Send an iteration's numbers off."""
        self._under_way.append((iteration, HostCopy(numbers)))

    def arrived(self, left: int = 1) -> Iterator[tuple[int, list[float]]]:
        """Iterations and their numbers, each once: all that are here, and waited for until only `left` are not."""
        while self._under_way and (len(self._under_way) > left or self._under_way[0][1].here()):
            iteration, reading = self._under_way.popleft()
            yield iteration, reading.read()
