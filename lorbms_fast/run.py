"""Runs and their checkpoints: everything needed to go on as if nothing had happened, in formats that hold no code.

`RUN/checkpoints/00001000/` is the state after 1,000 iterations, a folder as `lorbms_fast.checkpoint` writes them.
Batches are functions of their number and nothing else is random: there are no generator states to keep.
"""

import json
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lorbms_fast import checkpoint
from lorbms_fast.atomic_io import atomic_folder, atomic_write, clear_partials, exclusive_lock, remove_whole
from lorbms_fast.config import TrainConfig, read_config, to_json
from lorbms_fast.differences import differences
from lorbms_fast.engine.optimizers import Optimizers
from lorbms_fast.errors import UserError
from lorbms_fast.models import build
from lorbms_fast.types import Networks

FORMAT = {"format": "lorbms-fast run", "version": 2}


class Progress(NamedTuple):
    """How far a run came."""

    iteration: int = 0
    """Finished iterations."""
    batches: int = 0
    """Batches that they took: as many an iteration as there were processes, four times that with fresh ones."""
    rollbacks: int = 0
    """How often the run went back to a checkpoint since it diverged; each time it learns more slowly."""


BEGINNING = Progress()


@dataclass(frozen=True)
class Run:
    """A run's folder: its settings, the store it learns from and its checkpoints."""

    folder: Path
    config: TrainConfig
    store: Path

    @classmethod
    def create(cls, folder: Path, config: TrainConfig, store: Path) -> "Run":
        """Make a new run's folder, or that of a run anew which failed before it had anything to lose.

        Raises:
            UserError: there is a run with checkpoints or metrics already, or another process is about to train one.
        """
        run = cls(folder, config, store)
        with exclusive_lock(folder, f"is training {folder}"):
            if (folder / "run.json").exists() and (run.checkpoints() or (folder / "metrics.jsonl").exists()):
                raise UserError(
                    f"{folder} is a run already: continue it with --resume {folder}, or choose another --out"
                )
            with atomic_write(folder / "config.json") as partial:
                partial.write_text(to_json(config) + "\n")
            with atomic_write(folder / "run.json") as partial:
                partial.write_text(json.dumps(FORMAT | {"store": str(store.resolve())}, indent=2) + "\n")
        return run

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Open an existing run.

        Raises:
            UserError: it is none, or one of another format.
        """
        path = folder / "run.json"
        try:
            facts = json.loads(path.read_text())
            found, store = {name: facts.get(name, "absent") for name in FORMAT}, Path(facts["store"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{folder} is not a run: name a folder that `lorbms-fast train` wrote") from error
        if found != FORMAT:
            raise UserError(
                f"{path} is of another version: {'; '.join(differences(found, FORMAT))}; go on with the release of "
                "lorbms-fast that wrote it, or begin a new run"
            )
        return cls(folder, read_config(folder / "config.json", TrainConfig()), store)

    def checkpoints(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        found = (path for path in self.folder.glob("checkpoints/*") if re.fullmatch(r"\d{8,}", path.name))
        return sorted(found, key=lambda path: int(path.name))

    def latest(self) -> Path:
        """The newest checkpoint whose files are what was written; damaged newer ones are told of.

        Raises:
            UserError: there is none yet, or the newest that can be read is of another version or model.
        """
        damaged = []
        for path in reversed(self.checkpoints()):
            try:
                facts = _checked(path, _stamp(path))
            except checkpoint.Damaged as error:
                damaged.append(str(error))
                continue
            checkpoint.check_model(path, facts["model"], self.config.model)
            for message in damaged:
                _tell_once(f"lorbms-fast: {message}: using the checkpoint before it, {path}")
            return path
        if damaged:
            raise UserError(f"{self.folder} has no checkpoint that is whole: {'; '.join(damaged)}")
        raise UserError(f"{self.folder} has no checkpoint yet: train it first")

    def best(self) -> Path | None:
        """The checkpoint with the lowest L_rec_hat over the iterations before it; None where none has such a number."""
        found = [(error, path) for path in self.checkpoints() if (error := _L_rec_hat(path)) is not None]
        return min(found)[1] if found else None

    def save(
        self, progress: Progress, networks: Networks, optimizers: Optimizers, L_rec_hat: float | None = None
    ) -> Path:
        """Write the checkpoint of this progress, and drop the oldest beyond `keep_checkpoints`, but not the best.

        Args:
            progress: how far the run came; checkpoints of this and later iterations, damaged ones say, are set aside.
            networks: whose state to keep.
            optimizers: theirs.
            L_rec_hat: mean over the iterations before, by which the best is known.
        """
        path = self.folder / "checkpoints" / f"{progress.iteration:08d}"
        for abandoned in self.checkpoints():
            if int(abandoned.name) >= progress.iteration:
                _set_aside(abandoned)
        with atomic_folder(path) as partial:
            facts = progress._asdict() | {"L_rec_hat": L_rec_hat, "model": asdict(self.config.model)}
            checkpoint.write(partial, networks, optimizers, facts)
        kept = {self.best(), *self.checkpoints()[-self.config.keep_checkpoints :]}
        for old in self.checkpoints():
            if old not in kept:
                remove_whole(old)
        return path

    def restore(self, networks: Networks, optimizers: Optimizers) -> Progress:
        """Load the newest whole checkpoint into networks and optimizers, and say how far it came.

        Raises:
            UserError: there is none, or it is of another version or model.
        """
        path = self.latest()
        checkpoint.restore(path, networks, optimizers)
        facts = checkpoint.facts_of(path)
        try:
            return Progress(*(int(facts[name]) for name in Progress._fields))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path / checkpoint.STATE} does not say how far it came ({error!r}): "
                f"remove {path} to use the one before"
            ) from error

    def check_space(self, networks: Networks, optimizers: Optimizers) -> None:
        """Look for room for the checkpoints that are still to come, and one more while an old one is replaced.

        Raises:
            UserError: the disk is too small.
        """
        missing = max(1, self.config.keep_checkpoints + 2 - len(self.checkpoints()))
        needed, free = missing * checkpoint.size(networks, optimizers), shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"{self.folder} needs {needed / 1e9:.2f} GB for checkpoints and {free / 1e9:.2f} GB are free on its "
                "disk: make room, or lower --keep-checkpoints"
            )

    def tidy(self) -> None:
        """Remove what processes that were killed left half written."""
        for name in (".", "checkpoints", "divergence", "sheets"):
            clear_partials(self.folder / name)


def load_networks(folder: Path, device: torch.device | str = "cpu") -> Networks:
    """The networks of a run's newest whole checkpoint, for evaluation.

    Args:
        folder: the run.
        device: where to put them.
    """
    run = Run.open(folder)
    path = run.latest()  # before there are networks: a run that has none, or others, costs no memory
    networks = build(run.config.model, run.config.impl)
    checkpoint.load_weights(networks, path / checkpoint.MODEL)
    return networks.to(device).eval()


def _L_rec_hat(path: Path) -> float | None:
    try:
        found = checkpoint.facts_of(path).get("L_rec_hat")
    except UserError:
        return None
    return found if isinstance(found, float) else None


def _set_aside(path: Path) -> None:
    """Give a checkpoint a name that is none."""
    aside = path.with_name(f"{path.name}.aside")
    if aside.exists():
        remove_whole(aside)
    path.rename(aside)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes when a folder's files do, without reading them."""
    return tuple(sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir()))


@lru_cache(maxsize=64)
def _checked(path: Path, stamp: tuple[tuple[str, int, int], ...]) -> dict[str, Any]:
    """`checkpoint.check`, once for files that stay as they are: a page asks for the newest checkpoint all the time."""
    return checkpoint.check(path)


@cache
def _tell_once(message: str) -> None:
    print(message, file=sys.stderr)
