"""Times on a GPU: of work inside a CUDA graph, between two events, its cache emptied before."""

import time
from collections.abc import Callable

import torch

from bench.gpu.tape import Tape
from lorbms_fast.engine.first_use import judging


def milliseconds(work: Callable[[], object], device: torch.device, replays: int = 15) -> float:
    """Median time of one piece of work among several inside one graph.

    Args:
        work: reads and writes fixed memory, no number goes to the host.
        device: a GPU; or a CPU, where a tape stands for the graph and the time means nothing.
        replays: how many are timed.
    """
    if device.type == "cpu":

        def once() -> None:
            work()

        began = time.perf_counter()
        Tape(list).record(once)  # refuses what no graph can hold
        return 1e3 * (time.perf_counter() - began)
    return judging.milliseconds(work, device, replays)
