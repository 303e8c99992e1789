"""Requests to stop (SIGINT, SIGTERM, SIGHUP), noted when they come and followed when an iteration is over."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A stop on request; everything up to `iteration` is on disk."""

    def __init__(self, iteration: int) -> None:
        super().__init__(iteration)
        self.iteration = iteration


class StopRequests:
    """Requests to stop that have come so far."""

    def __init__(self) -> None:
        self.came = False
        self._saved: int | None = None

    @contextmanager
    def at_once(self, saved: int) -> Iterator[None]:
        """Raise Interrupted for a request before or inside the block: all up to iteration `saved` is on disk."""
        self._saved = saved
        try:
            if self.came:
                raise Interrupted(saved)
            yield
        finally:
            self._saved = None

    def note(self) -> None:
        """Note that a request came, and say that an iteration has to end first."""
        self.came = True
        if self._saved is not None:
            raise Interrupted(self._saved)
        with suppress(OSError):  # nobody can be told; print would fail inside a print
            os.write(
                2, b"\nstopping: this iteration is finished and saved first; Ctrl-C again stops at once, unsaved\n"
            )


@contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Collect SIGINT, SIGTERM and, unless nohup has it ignored, SIGHUP instead of dying at once.

    A second SIGINT or SIGTERM acts as usual. SIGHUP comes where a terminal is closed or a connection breaks, from the
    system and from the shell: a second one asks for no more than the first.
    """
    requests = StopRequests()

    def note(number: int, frame: FrameType | None) -> None:
        for watched, handler in usual.items():
            signal.signal(watched, signal.SIG_IGN if watched == signal.SIGHUP else handler)
        requests.note()

    asked = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asked.append(signal.SIGHUP)
    usual = {number: signal.signal(number, note) for number in asked}
    try:
        yield requests
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
