"""Processes in which kernels are tried: they compile side by side; one that a kernel breaks or holds up is replaced."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

import torch

from lorbms_fast.engine.first_use.calls import Call
from lorbms_fast.engine.first_use.judging import Verdict, judge, launch
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.kernels._common.operation import TRITON
from lorbms_fast.worker import end_with_parent

COMPILING = 8
"""Max. processes that compile side by side."""
EACH = 3 << 30
"""Bytes of a GPU's memory that must be free for each of them."""
DEADLINE = 600.0
"""Seconds that nothing may come to an end in: a kernel that takes longer to compile and to run hangs."""
Judge = Callable[[Sequence[Sequence[Call]], torch.device], Iterator[Verdict | None]]


def judged_here(families: Sequence[Sequence[Call]], device: torch.device) -> Iterator[Verdict]:
    """Judge each operation's calls in this process, one operation after the other."""
    for calls in families:
        yield judge(calls, device)


def judged_apart(families: Sequence[Sequence[Call]], device: torch.device) -> Iterator[Verdict | None]:
    """Judge each operation's calls in a process of its own, on a GPU; yields None for each that was compiled before."""
    first = _pool(device)
    pool: ProcessPoolExecutor | None = first
    try:
        try:
            first.submit(_ready, device).result()
        except Exception:  # one process alone may use this GPU, or no other can be started from here
            yield from judged_here(families, device)
            return
        free = torch.cuda.mem_get_info(device)[0]
        processes = min(COMPILING, len(os.sched_getaffinity(0)), len(families), free // EACH)
        if processes > 1:
            yield from _compiled(families, device, processes)
        for calls in families:
            pool = pool or _pool(device)
            try:
                yield pool.submit(judge, calls, device).result(DEADLINE)
            except BrokenProcessPool:
                yield Verdict(failures={TRITON: "ended the process that tried it"})
                pool = None
            except TimeoutError:
                _end(pool)
                yield Verdict(failures={TRITON: f"did not come to an end in {DEADLINE:.0f} s"})
                pool = None
            except Exception as error:  # in the definition, or in the drawing
                (verdict := Verdict()).fail(TRITON, "could not be tried", error)
                yield verdict
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _compiled(families: Iterable[Sequence[Call]], device: torch.device, processes: int) -> Iterator[None]:
    with _pool(device, processes, _compile_alone) as pool, suppress(BrokenProcessPool):
        waiting = {pool.submit(launch, calls, device) for calls in families}
        while waiting:
            done, waiting = wait(waiting, DEADLINE, FIRST_COMPLETED)
            if not done:  # judging will tell which it is
                _end(pool)
                return
            yield from [None] * len(done)


def _pool(
    device: torch.device, processes: int = 1, begin: Callable[[torch.device], None] | None = None
) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), begin or _begin, (device,))


def _end(pool: ProcessPoolExecutor) -> None:
    """End a pool in which something hangs, with the compilers that its processes started."""
    for pid, process in [*pool._processes.items()]:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        process.kill()  # where it has no group of its own yet
    pool.shutdown(cancel_futures=True)


def _compile_alone(device: torch.device) -> None:
    """Choose no tile sizes by time while others use the GPU."""
    _begin(device)
    if dispatch.HAS_TRITON:
        from lorbms_fast.kernels._common.autotune import Tuner

        Tuner.timed = False


def _begin(device: torch.device) -> None:
    """Leave Ctrl-C to the process that waits, and the processors to the others; work on one GPU."""
    os.setpgid(0, 0)
    end_with_parent(lambda: os.killpg(0, signal.SIGKILL))  # compilers too
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    if device.type == "cuda":
        torch.cuda.set_device(device)


def _ready(device: torch.device) -> None:
    torch.zeros(1, device=device)
