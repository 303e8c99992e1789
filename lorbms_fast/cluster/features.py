"""Features that no single memory holds: float16 rows of one quadrant in several `.npy` files."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAPPED = 256
"""Max. number of files that are mapped at a time: each takes one of the files that a process may open."""


class FeatureRows:
    """Rows (N, D) of files that are mapped when they are needed; given as float32."""

    def __init__(self, counts: Sequence[int], mapped: Callable[[int], NDArray[np.float16]]) -> None:
        """Join files with these numbers of rows, which `mapped` maps by their numbers."""
        self._file = lru_cache(MAPPED)(mapped)
        self._ends = np.cumsum(np.asarray(counts, np.int64))

    def __len__(self) -> int:
        return int(self._ends[-1])

    @cached_property
    def dimension(self) -> int:
        """D."""
        return self._file(0).shape[1]

    def __getitem__(self, rows: Any, /) -> NDArray[np.float32]:
        """Copy rows (...) into memory, (..., D)."""
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        flat = wanted.ravel()
        found = np.empty((len(flat), self.dimension), np.float32)
        file_of = np.searchsorted(self._ends, flat, side="right")
        for file in np.unique(file_of):
            those = np.flatnonzero(file_of == file)
            start = self._ends[file - 1] if file else 0
            found[those] = self._file(file)[flat[those] - start]
        return found.reshape(*wanted.shape, self.dimension)


class Ranges(Sequence[NDArray[np.int64]]):
    """Rows of cells that follow one another: cell c has rows starts[c] up to stops[c]."""

    def __init__(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> None:
        self._starts, self._stops = starts, stops

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, cell: Any, /) -> Any:
        return np.arange(self._starts[cell], self._stops[cell])
