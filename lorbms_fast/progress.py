"""Progress bars that do not mind when somebody sets the clock."""

import time
from collections.abc import Callable
from typing import Any

import tqdm as plain


class tqdm(plain.tqdm):  # noqa: N801
    """tqdm by a clock that only goes forward: its own, set back an hour, would show nothing for an hour."""

    @property
    def _time(self) -> Callable[[], float]:
        return time.monotonic

    @_time.setter
    def _time(self, clock: Any) -> None:
        """The clock is not to be chosen, though tqdm tries to."""
