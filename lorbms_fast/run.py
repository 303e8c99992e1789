"""A run's folder: its settings, the store that it learns from, its progress and its checkpoints.

`RUN/checkpoints/00001000/` is the state after 1,000 iterations, a folder as `lorbms_fast.checkpoint` writes them.
Batches are functions of their number and nothing else is random: there are no generator states to keep.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from lorbms_fast import checkpoint
from lorbms_fast.atomic_io import (
    LOCK,
    atomic_folder,
    atomic_write,
    check_room,
    clear_partials,
    exclusive_lock,
    write_json,
    write_text,
)
from lorbms_fast.config import TrainConfig, read_config, to_json
from lorbms_fast.dataloader.neighbour_table import NeighbourTable, neighbours_digest
from lorbms_fast.dataloader.store import FACTS, ImageStore
from lorbms_fast.differences import differences, of_another_version
from lorbms_fast.errors import UserError, as_word
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.types import Networks

FORMAT = {"format": "lorbms-fast run", "version": 2}
DEPTH = 3
"""Number of folders from a checkpoint's file to its run's."""


class Progress(NamedTuple):
    """A run's progress."""

    iteration: int = 0
    """Finished iterations."""
    images: int = 0
    """Images of the store that they passed, in all processes together; those that a pass left over count too, so that
    each pass over a store of N images counts N, whatever the batch size."""
    rollbacks: int = 0
    """Number of times that the run went back to a checkpoint; each time it learns more slowly."""
    ends_pass: bool = False
    """Did the iteration end one of the passes after which scenes are measured? Not noted before 1 December 2026."""


BEGINNING = Progress()


@dataclass(frozen=True)
class Run:
    """A run's folder: its settings, the store it learns from and its checkpoints."""

    folder: Path
    config: TrainConfig
    store: Path
    digest: str | None = None
    """Digest of the store's pixels, before 1 December 2026 of its index, too; None: nobody has noted it, as before 28
    November 2026."""
    neighbours: str | None = None
    """Digest of who the neighbours are; None: there are none, or nobody has noted it, as before 1 December 2026."""

    @classmethod
    def create(cls, folder: Path, config: TrainConfig, store: Path) -> "Run":
        """Make a new run's folder, also over one with nothing to lose; UserError over others, or while one trains."""
        run = cls(folder, config, store)
        run._check_folder()
        with exclusive_lock(folder, f"is training {folder}"):
            run._check_new()
            run._write()
        return run

    def fork(self, folder: Path) -> "Run":
        """Make another run that goes on from this one's newest checkpoint; UserError without one, or over a run."""
        newest = self.latest()
        forked = replace(self, folder=folder)
        forked._check_folder()
        with exclusive_lock(folder, f"is training {folder}"):
            forked._check_new()
            with atomic_folder(folder / "checkpoints" / newest.name) as partial:
                shutil.copytree(newest, partial, dirs_exist_ok=True)
            if (metrics := self.folder / "metrics.jsonl").exists():
                with atomic_write(folder / metrics.name) as partial:
                    shutil.copyfile(metrics, partial)
            forked._write()
        return forked

    def _check_folder(self) -> None:
        """Refuse what is no folder of a run's, before a lock is left in it."""
        if (self.folder / FACTS).exists():
            raise UserError(f"{self.folder} is an image store: choose another --out")
        if str(self.folder).encode(errors="replace").decode() != str(self.folder):
            raise UserError(f"{self.folder} is not UTF-8, as safetensors wants names: choose another --out")

    def withdraw(self) -> None:
        """Remove what `create` wrote, where there is nothing to lose and no other process trains it."""
        with suppress(UserError), exclusive_lock(self.folder, f"is training {self.folder}"):
            if not self._has_begun():
                for name in ("run.json", "config.json", LOCK):
                    (self.folder / name).unlink(missing_ok=True)
                with suppress(OSError):  # the folder was there, with other things in it
                    self.folder.rmdir()

    def _has_begun(self) -> bool:
        return bool(self.checkpoints()) or (self.folder / "metrics.jsonl").exists()

    def _check_new(self) -> None:
        if (self.folder / "run.json").exists() and self._has_begun():
            raise UserError(
                f"{self.folder} is a run already: continue it with --resume {as_word(self.folder)}, "
                "or choose another --out"
            )

    def _write(self) -> None:
        """Write settings and store; run.json last, which makes the folder a run."""
        write_text(self.folder / "config.json", to_json(self.config) + "\n")
        digests = {"images": self.digest, "neighbour_ids": self.neighbours}
        facts = FORMAT | {"store": str(self.store.resolve())} | {name: of for name, of in digests.items() if of}
        write_json(self.folder / "run.json", facts)

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Open an existing run; UserError where it is none, or one of another format."""
        folder = Path(folder)
        path = folder / "run.json"
        try:
            facts = json.loads(path.read_text())
            found, store = {name: facts.get(name, "absent") for name in FORMAT}, Path(facts["store"])
            digests = [None if facts.get(of) is None else str(facts[of]) for of in ("images", "neighbour_ids")]
        except PermissionError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}): change its permissions") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} is damaged ({error}): copy it back if you have it elsewhere, or begin a new run with --out"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            around = next((one for one in list(folder.parents)[:DEPTH] if (one / "run.json").is_file()), None)
            remedy = f"it lies in {around}, name that" if around else "name a folder that `lorbms-fast train` wrote"
            raise UserError(f"{folder} is not a run: {remedy}") from error
        if found != FORMAT:
            raise of_another_version(path, found, FORMAT)
        return cls(folder, read_config(folder / "config.json", TrainConfig()), store, *digests)

    def open_store(self, moved_to: Path | None = None) -> ImageStore:
        """Open the store that the run learns from, where it was or has moved to; UserError where there is none."""
        if moved_to is None and not self.store.exists():
            raise UserError(
                f"the store of {self.folder} is not at {self.store} any more: where it was moved to, tell once with  "
                f"lorbms-fast train STORE --resume {as_word(self.folder)}  or each time, to other commands, by --store"
            )
        return ImageStore.open(moved_to or self.store)

    def on(self, store: ImageStore, other_images: bool = False) -> "Run":
        """Return the same run on a store that has moved, or, with `other_images`, another store; else UserError.

        A store whose neighbours are others than before is another one too.
        """
        digest = self.digest
        if digest is None and self.store.exists() and self.store.resolve() != store.path.resolve():
            digest = ImageStore.open(self.store).pixels
        if digest not in (None, store.pixels, store.digest) and self.checkpoints() and not other_images:
            raise UserError(
                f"{store.path} holds other images than those of {self.store} that {self.folder} has learned from: "
                "name a store of the same images, wherever it is now, or say --other-images to go on with these"
            )
        neighbours = neighbours_digest(store)
        if self.neighbours not in (None, neighbours) and self.checkpoints() and not other_images:
            NeighbourTable.load(store)  # which says where there are none
            raise UserError(
                f"{store.path} has other neighbours than those that {self.folder} has learned from: find those again "
                f"with the options of lorbms-fast neighbours that were used then, or say --other-images to go on"
            )
        now = store.digest if digest == store.digest else store.pixels
        return replace(self, store=store.path, digest=now, neighbours=neighbours)

    def keep(self) -> None:
        """Write down settings and store where they are other than in the folder, and say which."""
        kept = Run.open(self.folder)
        if self != kept:
            self._write()
        if changed := list(differences(asdict(self.config), asdict(kept.config))):
            print(f"from now on kept in {self.folder / 'config.json'}: {'; '.join(changed)}")
        for change in self._changes_of_store(kept):
            print(change)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep settings and store as `keep` does; where the block fails without a new checkpoint, as before."""
        before, learned = Run.open(self.folder), self.checkpoints()
        self.keep()
        try:
            yield
        except Exception:  # want of memory is none of ours yet; an interruption has saved a checkpoint
            if self != before and self.checkpoints() == learned:
                before._write()
                if self.config != before.config:
                    print(f"{self.folder / 'config.json'} is as before again: nothing was learned with other settings")
                if any(self._changes_of_store(before)):
                    print(f"{self.folder / 'run.json'} is as before again: nothing was learned from {self.store}")
            raise

    def _changes_of_store(self, kept: "Run") -> Iterator[str]:
        """Say where the store is elsewhere, or known to have other images or neighbours."""
        if self.store.resolve() != kept.store.resolve():
            yield f"from now on kept in {self.folder / 'run.json'}: the store is {self.store}, not {kept.store}"
        if kept.digest not in (None, self.digest):
            yield f"{self.folder} goes on with other images than before, those of {self.store}"
        elif kept.neighbours not in (None, self.neighbours):
            yield f"{self.folder} goes on with other neighbours than before, those of {self.store}"

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def checkpoints(self) -> list[Path]:
        """List the finished checkpoints, oldest first."""
        return checkpoint.finished(self._checkpoints)

    def latest(self) -> Path:
        """Find the newest checkpoint as `checkpoint.newest` does, with its errors."""
        return checkpoint.newest(self._checkpoints, self.config.model)

    def best(self) -> Path | None:
        """Find the checkpoint with the lowest L_rec_hat over the iterations before it; None where none has it."""
        return checkpoint.best(self._checkpoints)

    def save(
        self, progress: Progress, networks: Networks, optimizers: Optimizers, L_rec_hat: float | None = None
    ) -> Path:
        """Write the checkpoint of this progress, and drop the oldest beyond `keep_checkpoints`, but not the best.

        Checkpoints of this and later iterations, damaged ones say, are set aside. The best is known by `L_rec_hat`, the
        mean over the iterations before.
        """
        facts = progress._asdict() | {"L_rec_hat": L_rec_hat, "model": asdict(self.config.model)}
        path = checkpoint.save(self._checkpoints, progress.iteration, networks, optimizers, facts)
        checkpoint.retain(self._checkpoints, self.config.keep_checkpoints)
        return path

    def restore(self, networks: Networks, optimizers: Optimizers) -> Progress:
        """Load the newest whole checkpoint, and say how far it came; UserError without one that says so."""
        path = self.latest()
        checkpoint.restore(path, networks, optimizers)
        facts = {"ends_pass": False} | checkpoint.facts_of(path)
        if "batches" in facts:
            raise UserError(
                f"{path} counts batches where images are counted since 28 November 2026: go on with the version of "
                "lorbms-fast that wrote it, or begin a new run; its networks can still be used"
            )
        try:
            return Progress._make(int(facts[name]) for name in Progress._fields)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"{path / checkpoint.STATE} does not say how far it came ({error!r}): "
                f"remove {path} to use the one before"
            ) from error

    def check_space(self, networks: Networks, optimizers: Optimizers) -> None:
        """Raise UserError without room for all checkpoints to come, and one while an old one is replaced."""
        missing = max(1, self.config.keep_checkpoints + 2 - len(self.checkpoints()))
        needed = missing * checkpoint.size(networks, optimizers)
        check_room(self.folder, needed, "checkpoints", "make room, or lower --keep-checkpoints")

    def tidy(self) -> None:
        """Remove what processes that were killed left half written."""
        for name in (".", "checkpoints", "divergence", "sheets"):
            clear_partials(self.folder / name)


def load_networks(folder: Path | str, device: torch.device | str = "cpu") -> Networks:
    """Load the networks of a run's newest whole checkpoint, for evaluation."""
    run = Run.open(folder)
    path = run.latest()  # before there are networks: a run that has none, or others, costs no memory
    networks = build(run.config.model, run.config.impl)
    try:
        checkpoint.load_weights(networks, path / checkpoint.MODEL)
    except checkpoint.Damaged:
        if path.exists():
            raise
        return load_networks(folder, device)  # the run is training, and has newer ones
    return networks.to(device).eval()
