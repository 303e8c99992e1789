"""Work in real processes, for signals, that begin quickly: they are forked from a server that has imported all."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine.signals import Interrupted
from lorbms_fast.run import Run
from lorbms_fast.training.session import run_training

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["lorbms_fast.cli", "lorbms_fast.dataloader.prepare", "tests.processes"])


def train(folder: Path) -> None:
    """Train a run to its end."""
    run = Run.open(folder)
    try:
        run_training(run, ImageStore.open(run.store))
    except Interrupted:
        sys.exit(130)  # as the command does


def work_together(count: int, work: Callable[..., None], *arguments: object) -> None:
    """Let `count` processes do `work(rank, *arguments)`, and wait until all have done it."""
    processes = [PROCESSES.Process(target=_with_one_thread, args=(work, rank, *arguments)) for rank in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * count


def _with_one_thread(work: Callable[..., None], *arguments: object) -> None:
    torch.set_num_threads(1)
    work(*arguments)


def _quietly(begun: Connection, work: Callable[..., None], arguments: tuple[object, ...], says: Path) -> None:
    told = os.open(says, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(told, stream)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where nohup runs the tests
    begun.send(True)
    _with_one_thread(work, *arguments)


@contextmanager
def started(
    work: Callable[..., None], *arguments: object, says: Path = Path(os.devnull)
) -> Iterator[multiprocessing.Process]:
    """Another process at work, which has begun when the block does, and which the block's end kills.

    Args:
        work: a function of a module.
        arguments: of it.
        says: file that takes what it prints.
    """
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_quietly, args=(there, work, arguments, says))
    process.start()
    here.recv()
    yield process
    process.kill()
    process.join()
    here.close()
    there.close()
