"""Labeled sets of pictures."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorbms_fast.dataloader.decoders import read_rgb
from lorbms_fast.dataloader.sources.folder import SUFFIXES, is_hidden
from lorbms_fast.errors import UserError


@dataclass(frozen=True)
class Labelled:
    """Pictures, their labels, and where they come from."""

    pictures: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]
    """Each uint8 (H, W, 3); read when they are asked for."""
    labels: NDArray[Any]
    """(N,) int64 class numbers from 0, or (N, C) float32 of zeros and ones where a picture may show several classes."""
    classes: tuple[str, ...]
    """Their names."""
    source: str
    """Description that goes beside every number obtained on them."""

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """Compute a name that changes when the labels, their number, or the first or last picture do."""
        ends = [np.ascontiguousarray(self.pictures[i]).tobytes() for i in (0, len(self) - 1)]
        return sha256(b"".join([np.ascontiguousarray(self.labels).tobytes(), *ends])).hexdigest()[:16]


class Decoded(Sequence[NDArray[np.uint8]]):
    """Pictures that are decoded when they are asked for, by their paths or what else names them."""

    def __init__(self, decode: Callable[[Any], NDArray[np.uint8]], names: Sequence[Any]) -> None:
        self._decode, self.names = decode, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: Any) -> Any:
        """Picture i as uint8 (H, W, 3)."""
        return self._decode(self.names[i])


def read_class_folders(folder: Path) -> Labelled:
    """Read ImageNet, or what is laid out as it is: the pictures of `folder/<class>/`, classes by name.

    Raises UserError where fewer than two folders have any.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: name the folder of ImageNet's classes, such as ILSVRC2012/train")
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))
    files = {
        name: sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES and not is_hidden(p.name))
        for name in classes
    }
    classes = [name for name in classes if files[name]]
    if len(classes) < 2:
        raise UserError(f"{folder} has {len(classes)} folders with pictures: ImageNet has one for each class")
    labels = np.repeat(np.arange(len(classes)), [len(files[name]) for name in classes])
    paths = [path for name in classes for path in files[name]]
    source = f"folders of ImageNet's kind, {folder.name}, {len(classes)} classes, {len(paths)} images"
    return Labelled(Decoded(read_rgb, paths), labels, tuple(classes), source)
