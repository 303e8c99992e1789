"""A worker process's tie to the process that started it."""

import threading
from collections.abc import Callable
from multiprocessing import connection, parent_process
from os import _exit


def end_with_parent(end: Callable[[], None] = lambda: _exit(1)) -> None:
    """Let this process end when the one that started it is gone, killed even: nobody would take its results.

    Workers wait for work in a pipe that they hold both ends of, so they would wait for ever, with all their memory, a
    GPU's too. `end` is called in a thread, and ends this process.
    """
    if (parent := parent_process()) is not None:
        threading.Thread(target=_wait, args=(parent.sentinel, end), daemon=True).start()


def _wait(sentinel: int, end: Callable[[], None]) -> None:
    connection.wait([sentinel])
    end()
