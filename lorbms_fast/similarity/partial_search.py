"""The folder of a neighbour search's finished parts, for resuming after an interruption."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.atomic_io import atomic_write, check_room, write_json, write_text
from lorbms_fast.dataloader.neighbour_table import QUADRANTS
from lorbms_fast.dataloader.store import checksum
from lorbms_fast.errors import UserError

FOLDER = "neighbours.partial"


@dataclass(frozen=True)
class PartialSearch:
    """`STORE/neighbours.partial`: the features, mapped, how many of them are there, and each quadrant's result."""

    folder: Path

    def begin(self, features_of: dict[str, str]) -> None:
        """Prepare the folder for features of a store, extractor, weights; UserError where it holds some of others."""
        path = self.folder / "features.json"
        with _damage_told(path, self.folder):  # without it, nobody knows whose features the others are
            found = json.loads(path.read_text()) if path.is_file() else features_of
            changed = ", ".join(name for name in features_of if found.get(name) != features_of[name])
        if changed and self.done:
            raise UserError(f"{self.folder} holds features of another {changed}: remove it, or go on with the same")
        for result in self.folder.glob("*.npz") if changed else ():
            result.unlink()  # of a search that was over but for its end
        write_json(path, features_of)

    def features(self, n: int, d: int) -> NDArray[np.float32]:
        """Map the features, float32 (4, n, d), in a file that is made if need be; UserError without room.

        A file that is there has the d that it has; UserError where it is damaged.
        """
        path = self.features_file
        if self.done == 0:
            for left in (path, self.folder / "done"):  # behind a kill, `done` may be of features that are gone
                left.unlink(missing_ok=True)
            check_room(path, 16 * n * d, "features", "make room")
            return np.lib.format.open_memmap(path, "w+", np.float32, (4, n, d))
        with _damage_told(path):
            found = np.load(path, mmap_mode="r", allow_pickle=False)  # "r+" would fill up a file cut short
            if found.ndim != 3 or found.shape[:2] != (QUADRANTS, n) or found.dtype != np.float32:
                raise ValueError(f"{found.dtype} {found.shape}")
        return np.lib.format.open_memmap(path, "r+")

    @property
    def features_file(self) -> Path:
        """The file of the features."""
        return self.folder / "features.npy"

    @property
    def done(self) -> int:
        """Number of images whose features are written; UserError where the file that says so is damaged."""
        path = self.folder / "done"
        with _damage_told(path):
            return int(path.read_bytes()) if path.is_file() and self.features_file.is_file() else 0

    def note_done(self, images: int) -> None:
        """Note how many images' features are on the disk."""
        write_text(self.folder / "done", str(images))

    def forget_done(self) -> None:
        """Forget how many images' features are written: features of another search are about to take their place."""
        (self.folder / "done").unlink(missing_ok=True)

    def load(self, name: str, settings: dict[str, Any]) -> dict[str, NDArray[Any]] | None:
        """Load a result that was saved under the same settings, if there is one; UserError where it is damaged."""
        path = self.folder / f"{name}.npz"
        if not path.is_file():
            return None
        with _damage_told(path), path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            if str(saved["settings"]) != json.dumps(settings):
                return None
            return {key: saved[key] for key in saved.files if key != "settings"}

    def save(self, name: str, settings: dict[str, Any], **arrays: NDArray[Any]) -> None:
        """Save a result."""
        with atomic_write(self.folder / f"{name}.npz") as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, settings=np.array(json.dumps(settings)), **arrays)


@contextmanager
def _damage_told(path: Path, remedy: Path | None = None) -> Iterator[None]:
    """Raise UserError where a part cannot be read, with what is to be removed: it alone, unless a remedy is named."""
    try:
        yield
    except Exception as error:  # zip files have a dozen kinds of them
        again = f"remove {remedy or path} and run the same command again"
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): {again}") from error


def digest_of_weights(path: Path | None) -> str:
    """Hash a weights file's content, or the names, sizes and times of the files of a run."""
    if path is None:
        return ""
    if path.is_file():
        return checksum(path)
    files = [(str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns) for file in path.rglob("*")]
    return sha256(json.dumps(sorted(files)).encode()).hexdigest()
