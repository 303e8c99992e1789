"""All kernels of the operations and of the iteration, compiled by several processes into the cache of later phases.

Every process goes through the work with Triton's launches turned into compilations, and compiles its share of them.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch
from zlib import crc32

import torch

from bench.gpu.cases import cases
from bench.gpu.findings import Findings
from bench.gpu.judging import DTYPES, arithmetic, results
from bench.gpu.setting import Setting
from lorbms_fast.errors import said
from lorbms_fast.kernels import use_impl
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.worker import end_with_parent

Work = Callable[[], object]
EACH = 8 << 30
"""Bytes of a GPU's memory for each process: an iteration of 128 images, whose launches alone are not made."""


def run(findings: Findings, setting: Setting) -> None:
    """Compile everything, and tell how much there was."""
    processes = 1 if setting.rehearse else side_by_side(setting.device)
    began = time.monotonic()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        parts = [pool.submit(compiled, setting, part, processes) for part in range(processes)]
        for part in as_completed(parts):
            kernels, failed = part.result()
            findings.row("Compiled", process=str(parts.index(part)), kernels=kernels, seconds=time.monotonic() - began)
            for what, error in failed:
                findings.row("Not compiled", error, kernel=what)


def side_by_side(device: torch.device) -> int:
    """Count the processes that the processors, and the GPU's free memory, have room for."""
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, min(16, len(os.sched_getaffinity(0)), free // EACH))


def compiled(setting: Setting, part: int, parts: int) -> tuple[int, list[tuple[str, str]]]:
    """Compile a process's share: how many kernels, and of those that could not be compiled the name and the error."""
    torch.set_num_threads(1)
    with compiling(part, parts, pretend=setting.rehearse) as found:
        for work in _works(setting):
            work()
    return len(found.done), found.failed


def _works(setting: Setting) -> Iterator[Work]:
    from lorbms_fast.measurement.step import step

    device = setting.device
    for n in setting.batches:
        for case in cases(setting.model, n, setting.side):
            if setting.rehearse and not case.name.startswith(("mixing", "step of Adam")):
                continue
            for name in setting.precisions:
                inputs = case.inputs(device)

                def work(case: Any = case, inputs: Any = inputs, name: Any = name) -> None:
                    with arithmetic(device, name):
                        results(case, inputs, DTYPES[name], "triton")

                yield work
    if not setting.rehearse:
        for n in (12, 64, 128):
            yield from [step("fast", setting.model, n, "bfloat16", device)] * 2
        for name in setting.precisions:
            yield from [step("fast", setting.model, 12, name, device)] * 2


class Compiled(NamedTuple):
    """Results of `compiling`."""

    done: set[str]
    failed: list[tuple[str, str]]


@contextmanager
def compiling(part: int, parts: int, pretend: bool) -> Iterator[Compiled]:
    """Inside the block launches are not made; of the kernels that they need, one part of several is compiled.

    If asked to `pretend`, Triton believes that a GPU of compute capability 9.0 is here.
    """
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.driver import driver
    from triton.runtime.jit import JITFunction

    from lorbms_fast.measurement.launches import launch_of

    launching, found = JITFunction.run, Compiled(set(), [])

    def run(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        variant = launch_of(self, grid, args, dict(kwargs)).variant
        if variant in found.done or crc32(variant.encode()) % parts != part:
            return
        found.done.add(variant)
        try:
            launching(self, *args, grid=grid, warmup=True, **kwargs)
        except Exception as error:  # another kernel may compile
            found.failed.append((self.__name__, said(error)))

    def tune(self: Autotuner, *args: Any, **kwargs: Any) -> None:
        self.nargs = dict(zip(self.arg_names, args, strict=False))
        for config in self.prune_configs(kwargs):
            self.fn.run(*args, **kwargs, **config.all_kwargs())
        self.nargs = None

    with ExitStack() as stack:
        stack.enter_context(patch.object(JITFunction, "run", run))
        stack.enter_context(patch.object(Autotuner, "run", tune))
        stack.enter_context(use_impl("triton"))
        if pretend:
            stack.enter_context(patch.object(dispatch, "INTERPRETED", True))
            stack.enter_context(patch.object(driver, "_active", _Hopper()))
        yield found


class _Hopper:
    """What Triton asks of a driver before it compiles, of a GPU that is not here."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)
