"""Processes in which kernels are tried: they compile side by side, and one that a kernel breaks is replaced."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

import torch

from lorbms_fast.engine.first_use.calls import Call
from lorbms_fast.engine.first_use.judging import Verdict, judge, launch
from lorbms_fast.kernels._common.operation import TRITON

COMPILING = 8
"""Max. processes that compile side by side."""
EACH = 3 << 30
"""Bytes of a GPU's memory that must be free for each of them."""
Judge = Callable[[Sequence[Sequence[Call]], torch.device], Iterator[Verdict | None]]


def judged_here(families: Sequence[Sequence[Call]], device: torch.device) -> Iterator[Verdict]:
    """Judge each operation's calls in this process, one operation after the other."""
    for calls in families:
        yield judge(calls, device)


def judged_apart(families: Sequence[Sequence[Call]], device: torch.device) -> Iterator[Verdict | None]:
    """Judge each operation's calls in a process of its own; yields None for each that was compiled before.

    Args:
        families: calls of an operation each.
        device: a GPU.
    """
    free = torch.cuda.mem_get_info(device)[0]
    processes = min(COMPILING, len(os.sched_getaffinity(0)), len(families), free // EACH)
    if processes > 1:
        yield from _compiled(families, device, processes)
    pool: ProcessPoolExecutor | None = None
    try:
        for calls in families:
            pool = pool or _pool(1)
            try:
                yield pool.submit(judge, calls, device).result()
            except BrokenProcessPool:
                yield Verdict(failures={TRITON: "ended the process that tried it"})
                pool = None
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _compiled(families: Iterable[Sequence[Call]], device: torch.device, processes: int) -> Iterator[None]:
    with _pool(processes) as pool, suppress(BrokenProcessPool):  # who broke it, judging will find
        for done in as_completed([pool.submit(launch, calls, device) for calls in families]):
            done.result()
            yield None


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _quiet)


def _quiet() -> None:
    """Leave Ctrl-C to the process that waits, and the processors to the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
