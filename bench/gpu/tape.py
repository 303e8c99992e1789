"""A CUDA graph for the CPU: operations written down with the numbers they had, to be done again on the same memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recording(TorchDispatchMode):
    """What a graph cannot hold fails; everything else is noted, with what it returned."""

    FORBIDDEN = (
        torch.ops.aten._local_scalar_dense,
        torch.ops.aten.nonzero,
        torch.ops.aten.masked_select,
        torch.ops.aten.lift_fresh,  # of `torch.tensor([...])`, which copies from the host
    )

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in self.FORBIDDEN:
            raise RuntimeError(f"{func} is not permitted when stream is capturing")
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, result))
        return result


class Tape:
    """Records work as `CudaGraphs` does: host numbers are frozen, memory is not, and recording leaves no trace.

    `state` gives all tensors that the work changes.
    """

    def __init__(self, state: Callable[[], list[torch.Tensor]]) -> None:
        self._state = state
        self.warmed, self.recorded, self.replayed = 0, 0, 0

    def warm_up(self, work: Callable[[], None]) -> None:
        self.warmed += 1
        work()

    def record(self, work: Callable[[], object]) -> Callable[[], None]:
        self.recorded += 1
        before = [tensor.detach().clone() for tensor in self._state()]
        try:
            with _Recording() as recording:
                work()
        finally:
            with torch.no_grad():
                for tensor, value in zip(self._state(), before, strict=True):
                    tensor.copy_(value)

        @torch.no_grad()
        def replay() -> None:
            self.replayed += 1
            for func, args, kwargs, result in recording.done:
                again = func(*args, **kwargs)
                for old, new in zip(_tensors(result), _tensors(again), strict=True):
                    if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                        old.copy_(new)

        return replay


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
