"""Memory that an iteration's tensors take, counted as it runs once on the CPU."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def largest_batch(counted: Iterable[tuple[int, int]], memory: float) -> int:
    """Largest batch that fits in bytes of memory, a tenth left to libraries, by a line through two batches' peaks."""
    (n, of_n), (m, of_m) = counted
    each = (of_m - of_n) / (m - n)
    return int((0.9 * memory - of_n + n * each) // each)


class Alive(TorchDispatchMode):
    """Bytes of all tensors made or written inside that are still there, and their greatest sum; not of those given."""

    def __init__(self, besides: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known = {tensor.untyped_storage().data_ptr() for tensor in besides}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if not size or place in self._known:
            return
        self._known.add(place)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self._known.discard(place)
        self._now -= size
