"""Times on a GPU: of work inside a CUDA graph, between two events, its cache emptied before."""

import time
from collections.abc import Callable
from statistics import median

import torch

from bench.gpu.tape import Tape
from lorbms_fast.engine.cuda_graph import CudaGraphs

REPEATED = 5
"""How often the work is done in one graph."""
CACHE = 256 << 20
"""Bytes that are written before each replay: more than any second-level cache."""


def milliseconds(work: Callable[[], object], device: torch.device, replays: int = 15) -> float:
    """Median time of one piece of work among several inside one graph.

    Args:
        work: reads and writes fixed memory, no number goes to the host.
        device: a GPU; or a CPU, where a tape stands for the graph and the time means nothing.
        replays: how many are timed.
    """
    if device.type == "cpu":
        began = time.perf_counter()
        Tape(list).record(lambda: _done(work, 1))  # refuses what no graph can hold
        return 1e3 * (time.perf_counter() - began)
    graphs = CudaGraphs(device)
    for _ in range(2):
        graphs.warm_up(lambda: _done(work, 1))
    replay = graphs.record(lambda: _done(work, REPEATED))
    cache = torch.empty(CACHE, dtype=torch.uint8, device=device)
    times = []
    for _ in range(replays):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        cache.zero_()  # meanwhile the host is ahead
        start.record()
        replay()
        end.record()
        times.append((start, end))
    torch.cuda.synchronize(device)
    return median(start.elapsed_time(end) for start, end in times) / REPEATED


def _done(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()
