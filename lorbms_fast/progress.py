"""Progress bars that leave readable logs and bear changes of the clock."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from typing import Any

import tqdm as plain

BETWEEN_LINES = 60.0
"""Seconds between two lines in a log."""


@contextmanager
def at_work(doing: str) -> Iterator[None]:
    """Show a spinner beside what is being done; in a log, a line when it begins and one a minute while it lasts."""
    if sys.stderr.isatty():
        from rich.console import Console  # which the layers alone do without

        with Console(stderr=True).status(doing):
            yield
        return
    over, began = Event(), time.monotonic()

    def tell() -> None:
        with suppress(OSError):  # a full disk under a log ends no work
            print(doing, file=sys.stderr, flush=True)
            while not over.wait(BETWEEN_LINES):
                print(f"{doing} ({time.monotonic() - began:.0f} s so far)", file=sys.stderr, flush=True)

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


class tqdm(plain.tqdm):  # noqa: N801
    """tqdm that writes a line a minute where its output is no terminal, such as the log of a run of days.

    Its clock only goes forward: tqdm's own, set back an hour, would show nothing for an hour.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._in_lines = not (kwargs.get("file") or sys.stderr).isatty()
        if self._in_lines:
            kwargs = {"mininterval": BETWEEN_LINES, "maxinterval": BETWEEN_LINES} | kwargs
        super().__init__(*args, **kwargs)

    def status_printer(self, file: Any) -> Callable[[str], None]:
        """Make a function that shows a state: over the last one, or below it."""
        if not self._in_lines:
            show = plain.tqdm.status_printer(file)

            def over(state: str) -> None:
                with suppress(OSError):  # a terminal that is closed ends no work
                    show(state)

            return over

        last = ""

        def below(state: str) -> None:
            nonlocal last
            if state.strip() and state != last:
                last = state
                with suppress(OSError):  # a full disk under a log ends no work
                    file.write(f"{state}\n")
                    file.flush()

        return below

    def clear(self, *args: Any, **kwargs: Any) -> None:
        """Make room for a message; lines stay."""
        if not self._in_lines:
            super().clear(*args, **kwargs)

    def close(self) -> None:
        """Close the bar, also where its last state can be told to nobody."""
        with suppress(OSError):
            super().close()

    @property
    def _time(self) -> Callable[[], float]:
        return time.monotonic

    @_time.setter
    def _time(self, clock: Any) -> None:
        """The clock is not to be chosen, though tqdm tries to."""
