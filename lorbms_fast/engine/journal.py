"""The log, sheets and progress bar of a run that trains, written by its first process."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from PIL import Image

from lorbms_fast.engine.async_metrics import AsyncMetrics
from lorbms_fast.engine.log import Log
from lorbms_fast.progress import tqdm
from lorbms_fast.types import StepMetrics

SHOWN = ("L_rec_hat", "L_rec_prime", "L_adv", "L_cls", "L_D")
"""Numbers of the log that the progress bar shows."""


class Journal:
    """A run's log and progress bar; metrics come from the device a while after their iteration, in order.

    Args:
        folder: the run's.
        start: iterations that were finished before.
        last: the run's last iteration.
        first: whether this process is the one that writes; others note nothing.
    """

    def __init__(self, folder: Path, start: int, last: int, first: bool) -> None:
        self._open = ExitStack()
        self._log = self._open.enter_context(Log(folder, start)) if first else None
        bar = tqdm(total=last, initial=start, unit="it", desc="training", smoothing=0.05, disable=not first)
        self._bar = self._open.enter_context(bar)
        self._metrics = AsyncMetrics()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def note(self, iteration: int, metrics: StepMetrics, logged: bool) -> None:
        """Count an iteration as done, and send its metrics off where they are to be logged."""
        self._bar.update()
        if logged and self._log is not None:
            self._metrics.send(iteration, metrics.stacked())

    def read(self, left: int) -> None:
        """Log the metrics that have arrived, after waiting until only those of `left` iterations have not."""
        if self._log is None:
            return
        for iteration, values in self._metrics.arrived(left):
            numbers = dict(zip(StepMetrics.names(), values, strict=True))
            self._log.write(iteration, numbers)
            self._bar.set_postfix({name: f"{numbers[name]:.3f}" for name in SHOWN}, refresh=False)

    def board(self, iteration: int, numbers: dict[str, float]) -> None:
        """Write numbers of an iteration to TensorBoard only."""
        if self._log is not None:
            self._log.board(iteration, numbers)

    def sheet(self, iteration: int, sheet: Image.Image) -> None:
        """Keep a sample sheet."""
        if self._log is not None:
            self._log.sheet(iteration, sheet)

    def kept_mean(self, name: str, since: int) -> float | None:
        """Sync all entries to disk, and return a number's mean over those after an iteration, if any."""
        if self._log is None:
            return None
        self._log.keep()
        return self._log.mean(name, since)
