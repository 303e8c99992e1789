"""Times on a GPU: of work inside a CUDA graph, between two events, its cache emptied before."""

import time
from collections.abc import Callable

import torch

from bench.gpu.tape import Tape
from lorbms_fast.engine.first_use import judging


def milliseconds(work: Callable[[], object], device: torch.device, replays: int = 15) -> float:
    """Median time of one piece of work among several inside one graph, over so many replays.

    The work reads and writes fixed memory and sends no number to the host. On a CPU a tape stands for the graph, and
    the time means nothing.
    """
    if device.type == "cpu":

        def once() -> None:
            work()

        began = time.perf_counter()
        Tape(list).record(once)  # refuses what no graph can hold
        return 1e3 * (time.perf_counter() - began)
    return judging.milliseconds(work, device, replays)
