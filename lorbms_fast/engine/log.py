"""The log of a run that trains, written by its first process: JSON lines, TensorBoard, sheets and progress bar."""

import json
import math
import os
from collections import deque
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from lorbms_fast.atomic_io import atomic_write, write_text
from lorbms_fast.engine.async_metrics import AsyncMetrics
from lorbms_fast.errors import UserError
from lorbms_fast.progress import tqdm
from lorbms_fast.types import StepMetrics

SHOWN = ("L_rec_hat", "L_rec_prime", "L_adv", "L_cls", "L_D")
"""Numbers of the log that the progress bar shows."""
RECENT = 1000
"""Max. number of entries that a mean is taken over."""
FIRST_MINUTE = 60
"""Seconds after which the log says how long the run will take."""


class Log:
    """`RUN/metrics.jsonl`, `RUN/tensorboard/`, `RUN/sheets/` and a progress bar, continued from an iteration.

    Entries after that iteration, of work that was lost, are dropped first. Metrics come from the device a while after
    their iteration, in order. In processes other than the first nothing is written.
    """

    def __init__(self, folder: Path, start: int, last: int, first: bool) -> None:
        self._folder, self._first = folder, first
        self._on_their_way = AsyncMetrics[int]()
        self._open = ExitStack()
        if first:
            self._begin(folder / "metrics.jsonl", start)
        bar = tqdm(total=last, initial=start, unit="it", desc="training", smoothing=0.05, disable=not first)
        self._bar = self._open.enter_context(bar)
        self._told = not first

    def _begin(self, metrics: Path, start: int) -> None:
        kept = [(line, entry) for line, entry in _read(metrics) if entry.get("iteration", math.inf) <= start]
        write_text(metrics, "".join(f"{line}\n" for line, _ in kept))
        self._recent = deque((entry for _, entry in kept), RECENT)
        self._metrics = self._open.enter_context(metrics.open("a"))
        self._board = self._open.enter_context(SummaryWriter(self._folder / "tensorboard", purge_step=start + 1))

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def note(self, iteration: int, metrics: StepMetrics, logged: bool) -> None:
        """Count an iteration as done, and send its metrics off where they are to be logged."""
        self._bar.update()
        if logged and self._first:
            self._on_their_way.send(iteration, metrics.stacked())

    def tell_duration(self, iteration: int) -> None:
        """Say after the first minute, once, how long the rest will take."""
        elapsed, total = self._bar.format_dict["elapsed"], self._bar.total
        if self._told or elapsed < FIRST_MINUTE or iteration >= total:
            return
        self._told = True
        left = elapsed / (iteration - self._bar.initial) * (total - iteration)
        tqdm.write(f"iteration {iteration:,}: the other {total - iteration:,} will take {_duration(left)}")

    def read(self, left: int) -> None:
        """Log the metrics that have arrived, after waiting until only those of `left` iterations have not."""
        for iteration, values in self._on_their_way.arrived(left):
            numbers = dict(zip(StepMetrics.names(), values, strict=True))
            self.write(iteration, numbers)
            self._bar.set_postfix({name: f"{numbers[name]:.3f}" for name in SHOWN}, refresh=False)

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

    def sheet(self, iteration: int, sheet: Image.Image) -> None:
        """Keep a sample sheet."""
        with atomic_write(self._folder / "sheets" / f"{iteration:08d}.png") as partial:
            sheet.save(partial, format="png")
        self._board.add_image("samples", np.asarray(sheet), iteration, dataformats="HWC")

    def kept_mean(self, name: str, since: int) -> float | None:
        """Sync all entries to disk, and average a number over those after an iteration; None where there are none.

        At most the last `RECENT` entries count.
        """
        os.fsync(self._metrics.fileno())
        self._board.flush()  # by itself it does so by the time of day, which may be set back
        found = [entry[name] for entry in self._recent if entry["iteration"] > since]
        return sum(found) / len(found) if found else None


def read_entries(metrics: Path) -> list[dict[str, float]]:
    """Read the numbers of a metrics file, an entry a line; UserError where a line is something else."""
    return [entry for _, entry in _read(metrics)]


def _read(metrics: Path) -> list[tuple[str, dict[str, float]]]:
    try:
        lines = read_lines(metrics)
        return [(line, {str(name): float(n) for name, n in json.loads(line).items()}) for line in lines]
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UserError(f"{metrics} is damaged ({error}): remove it, the run goes on without") from error


def read_lines(metrics: Path) -> list[str]:
    """Read the whole lines of a metrics file; a last one that a crash cut short does not count."""
    if not metrics.exists():
        return []
    return [line for line in metrics.read_text().split("\n")[:-1] if line]


def _duration(seconds: float) -> str:
    """Write a duration as people say it.

    >>> [_duration(seconds) for seconds in (9, 40, 540, 9000, 700_000)]
    ['less than a minute', 'about a minute', 'about 9 minutes', 'about 2.5 hours', 'about 8.1 days']
    """
    if seconds < 90:
        return "about a minute" if seconds > 30 else "less than a minute"
    return next(
        f"about {seconds / unit:{digits}} {name}"
        for below, unit, digits, name in (
            (5400, 60, ".0f", "minutes"),
            (172_800, 3600, ".1f", "hours"),
            (float("inf"), 86_400, ".1f", "days"),
        )
        if seconds < below
    )
