"""Several `.npy` files as one array of images."""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lorbms_fast.errors import UserError

Shape = tuple[int, int, int, int]
Rows = int | slice | NDArray[np.integer] | NDArray[np.bool_]


@dataclass(frozen=True)
class Shards:
    """Memory-mapped uint8 images, (N, S, S, 3), in the order of their files."""

    files: list[NDArray[np.uint8]]
    ends: NDArray[np.int64]
    """Number of images up to the end of each file."""
    opened: tuple[dict[Path, Shape], str] | None = None
    """What `open` was given."""

    @classmethod
    def open(cls, shapes: dict[Path, Shape], again: str) -> "Shards":
        """Map files whose headers and sizes must confirm known shapes, else UserError with `again` as the remedy."""
        files = [_map(path, shape, again) for path, shape in shapes.items() if shape[0]]
        if not files:
            raise UserError(f"{next(iter(shapes), 'the store')} holds no images: {again}")
        absolute = {path.resolve(): shape for path, shape in shapes.items()}
        return cls(files, np.cumsum([len(file) for file in files]), (absolute, again))

    def __reduce__(self) -> tuple[Any, ...]:
        """Map the files in another process, too, where they lie at other addresses, instead of sending them."""
        return (Shards.open, self.opened) if self.opened else (Shards, (self.files, self.ends))

    def __len__(self) -> int:
        return int(self.ends[-1])

    @property
    def shape(self) -> Shape:
        """(N, S, S, 3)."""
        _, height, width, channels = self.files[0].shape
        return len(self), height, width, channels

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """uint8, as of an array."""
        return self.files[0].dtype

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Give numpy all images: one file as it is mapped, read-only; of several a copy, else ValueError."""
        if copy is False and len(self.files) > 1:
            raise ValueError(f"images of {len(self.files)} files are one array only as a copy")
        images = self.files[0] if len(self.files) == 1 else np.concatenate(self.files)
        return np.array(images, dtype, copy=copy)

    def __getitem__(self, rows: Rows) -> NDArray[np.uint8]:
        """Copy the images of a row, a slice, or an array of rows of any shape: (*rows.shape, S, S, 3).

        As numpy has it, an array of N truth values stands for the rows where it is true. A tuple would be rows, columns
        and so on to numpy: IndexError.
        """
        if isinstance(rows, tuple):
            raise IndexError("images are taken by rows alone: images[rows][...] for parts of them")
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        wanted = counted_from_0(rows, len(self))
        flat = wanted.ravel()
        if len(self.files) == 1:
            images = self.files[0][flat]
        else:
            shard = np.searchsorted(self.ends, flat, side="right")
            from_end = flat - self.ends[shard]
            found = [self.files[file][row] for file, row in zip(shard.tolist(), from_end.tolist(), strict=True)]
            images = np.concatenate([np.empty((0, *self.shape[2:]), np.uint8), *found])
        return np.asarray(images.reshape(*wanted.shape, *self.shape[1:]))

    def addresses(self, rows: ArrayLike) -> NDArray[np.int64]:
        """Memory addresses of the images that `self[rows]` copies; valid as long as this object lives."""
        wanted = counted_from_0(rows, len(self))
        addresses: NDArray[np.int64] = self._first_images[np.searchsorted(self.ends, wanted, side="right")]
        return addresses + wanted * self.files[0][0].nbytes

    @cached_property
    def _first_images(self) -> NDArray[np.int64]:
        """Address of row 0 of the store by each file: its first image's, less the rows before it."""
        starts = self.ends - [len(file) for file in self.files]
        return np.array([file.ctypes.data for file in self.files]) - starts * self.files[0][0].nbytes


def counted_from_0(rows: ArrayLike, count: int) -> NDArray[np.int64]:
    """Count the rows that numpy would take of `count` images from 0; IndexError where it would take none.

    >>> counted_from_0([0, -1], 3).tolist(), counted_from_0([True, False, True], 3).tolist()
    ([0, 2], [0, 2])
    """
    wanted = np.asarray(rows)
    if wanted.dtype == bool:
        if wanted.shape != (count,):
            raise IndexError(f"truth values of shape {wanted.shape} for {count} images")
        return np.flatnonzero(wanted)
    if wanted.size and wanted.dtype.kind not in "iu":
        raise IndexError(f"rows are whole numbers or truth values, not {wanted.dtype}")
    if wanted.size and not (-count <= wanted.min() and wanted.max() < count):
        raise IndexError(f"rows {wanted.min()} to {wanted.max()} of {count} images")
    return np.asarray(wanted.astype(np.int64) % count)


def _map(path: Path, shape: Shape, again: str) -> NDArray[np.uint8]:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("error")
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("not version 1.0 of the npy format")
            found, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
    except PermissionError:
        raise
    except Exception as error:  # the header is a Python expression, which a stranger may have written
        raise UserError(f"{path} cannot be read ({error}): {again}") from error
    if found != shape or fortran_order or dtype != np.uint8:
        raise UserError(f"{path} holds {dtype} {found} where uint8 {shape} was written: {again}")
    expected = start + math.prod(shape)
    if path.stat().st_size != expected:
        raise UserError(f"{path} has {path.stat().st_size:,} bytes instead of {expected:,}: {again}")
    try:
        return np.memmap(path, np.uint8, "r", start, shape).view(np.ndarray)
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path} cannot be mapped ({error}): {again}") from error
