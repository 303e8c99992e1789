"""Branches of an iteration that a GPU may run side by side; in a CUDA graph they become branches of the graph."""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")
U = TypeVar("U")


def concurrently(here: Callable[[], T], aside: Callable[[], U], device: torch.device) -> tuple[T, U]:
    """Do two pieces of work that read nothing of each other: on a GPU the second on a stream beside the current one.

    What follows on the current stream waits for both. A backward goes back over the same streams, and autograd makes
    each wait where gradients cross. `aside` may read what the caller keeps until then, gradients included: memory is
    used again in the order of the stream that it was taken on, which does not wait for other readers.
    """
    if device.type != "cuda":
        return here(), aside()
    current = torch.cuda.current_stream(device)
    beside = _beside(current)
    beside.wait_stream(current)
    try:
        result = here()
        with torch.cuda.stream(beside):
            return result, aside()
    finally:  # also where one fails: nothing goes on behind the back of whoever answers that
        current.wait_stream(beside)


@cache
def _beside(stream: torch.cuda.Stream) -> torch.cuda.Stream:
    """Take another stream for all that ever goes beside one: torch hands out the same few in turn."""
    while (other := torch.cuda.Stream(stream.device)) == stream:
        pass
    return other
