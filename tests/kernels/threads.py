"""Numbers of threads, and that results do not depend on them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch compute with so many inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def the_same_by_threads(compute: Callable[[], Sequence[Tensor]], counts: Sequence[int] = (1, 2, 3)) -> Sequence[Tensor]:
    """Return what is computed, the same bits by each number of threads."""
    found = []
    for count in counts:
        with threads(count):
            found.append(compute())
    for others in found[1:]:
        for first, other in zip(found[0], others, strict=True):
            assert torch.equal(first, other)
    return found[0]
