"""The log of a run: JSON lines, TensorBoard and sheets."""

import json
import os
from collections import deque
from pathlib import Path
from types import TracebackType

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.errors import UserError

RECENT = 1000
"""Max. number of entries that a mean is taken over."""


class Log:
    """`RUN/metrics.jsonl`, `RUN/tensorboard/` and `RUN/sheets/`, continued from an iteration.

    Entries after that iteration, of work that was lost, are dropped first.
    """

    def __init__(self, folder: Path, start: int) -> None:
        self._folder = folder
        metrics = folder / "metrics.jsonl"
        kept = [line for line in read_lines(metrics) if json.loads(line)["iteration"] <= start]
        with atomic_write(metrics) as partial:
            partial.write_text("".join(f"{line}\n" for line in kept))
        self._recent = deque((json.loads(line) for line in kept[-RECENT:]), RECENT)
        self._metrics = metrics.open("a")
        self._board = SummaryWriter(folder / "tensorboard", purge_step=start + 1)

    def __enter__(self) -> "Log":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._metrics.close()
        self._board.close()

    def write(self, iteration: int, numbers: dict[str, float]) -> None:
        """Log the numbers of an iteration."""
        entry = {"iteration": iteration} | numbers
        self._metrics.write(json.dumps(entry) + "\n")
        self._metrics.flush()
        self._recent.append(entry)
        self.board(iteration, numbers)

    def board(self, iteration: int, numbers: dict[str, float]) -> None:
        """Write numbers of an iteration to TensorBoard only."""
        for name, value in numbers.items():
            self._board.add_scalar(name, value, iteration)

    def keep(self) -> None:
        """Sync all entries to disk."""
        os.fsync(self._metrics.fileno())
        self._board.flush()  # by itself it does so by the time of day, which may be set back

    def mean(self, name: str, since: int) -> float | None:
        """Average a number over the entries after an iteration, `RECENT` of them at most; None where there are none."""
        found = [entry[name] for entry in self._recent if entry["iteration"] > since]
        return sum(found) / len(found) if found else None

    def sheet(self, iteration: int, sheet: Image.Image) -> None:
        """Keep a sample sheet."""
        with atomic_write(self._folder / "sheets" / f"{iteration:08d}.png") as partial:
            sheet.save(partial, format="png")
        self._board.add_image("samples", np.asarray(sheet), iteration, dataformats="HWC")


def read_entries(metrics: Path) -> list[dict[str, float]]:
    """Read the numbers of a metrics file, an entry a line.

    Raises:
        UserError: a line is something else.
    """
    try:
        return [{str(name): float(n) for name, n in json.loads(line).items()} for line in read_lines(metrics)]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{metrics} is damaged ({error}): remove it, the run goes on without") from error


def read_lines(metrics: Path) -> list[str]:
    """Read the whole lines of a metrics file; a last one that a crash cut short does not count."""
    if not metrics.exists():
        return []
    return [line for line in metrics.read_text().split("\n")[:-1] if line]
