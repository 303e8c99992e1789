"""The bytes of a photograph: a file, or a range of one."""

import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from lorbms_fast.errors import UserError, one_line

MAX_BYTES = 1 << 30
"""Longer files are not read: no photograph is that long."""


SHOWN = 300
"""Max. number of a name's characters in a message."""


def shown(name: object) -> str:
    """Make a name fit for a message: what cannot be printed is escaped, and of a long name the ends are kept.

    >>> print(shown("a\\0.jpg"))
    a\\x00.jpg
    """
    return one_line(str(name), SHOWN)


class BadImage(UserError):
    """A file that cannot be read as a photograph: `path`, and in `reason` what is wrong in a few words."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(f"{path} {reason}: replace it or name another")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type["BadImage"], tuple[Path | str, str]]:
        return type(self), (self.path, self.reason)


def is_inside(name: str) -> bool:
    """Check that a path relative to a folder can be a file's and stays in the folder, links aside.

    >>> [is_inside(name) for name in ("a/b.jpg", "../b.jpg", "/etc/passwd", "a\\0.jpg")]
    [True, False, False, False]
    """
    path = Path(name)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in name


def is_file(path: Path) -> bool:
    """Check that a file exists; no file has a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A file, or a part of one: a member of a tar archive, a record of an STL-10 file."""

    path: str
    """Relative to the folder that was asked for."""
    offset: int = 0
    """First byte of the photograph."""
    length: int | None = None
    """Number of its bytes; None for the whole file."""

    def __str__(self) -> str:
        return self.path if self.length is None else f"{self.path} (from byte {self.offset})"

    def read(self, root: Path) -> bytes:
        """Read the photograph; BadImage where it is missing, unreadable, empty, too short, or out of `root`."""
        path = root / self.path
        if not is_inside(self.path):
            raise BadImage(path, f"is not in the folder {root}")
        if self.offset < 0 or (self.length is not None and self.length < 0):
            raise BadImage(path, f"has no {self.length} bytes from byte {self.offset} on")
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # no waiting for a pipe's other end
            try:
                status = os.fstat(descriptor)
                if not S_ISREG(status.st_mode):
                    raise BadImage(path, "is not a file")
                length = status.st_size if self.length is None else self.length
                if length > MAX_BYTES:
                    raise BadImage(path, f"has {length:,} bytes, more than {MAX_BYTES:,}")
                data = os.pread(descriptor, length, self.offset)
            finally:
                os.close(descriptor)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BadImage(path, "is missing") from error
        except OSError as error:
            raise BadImage(path, f"cannot be read ({error.strerror})") from error
        if not data:
            raise BadImage(path, "is empty (0 bytes)")
        if len(data) < length:
            raise BadImage(path, f"ends {length - len(data):,} bytes before the photograph at byte {self.offset} does")
        return data


@dataclass(frozen=True, slots=True)
class Photograph:
    """A photograph and what its annotations say of it."""

    id: str
    place: ByteRange
    boxes: int = 0
    size: tuple[int, int] | None = None
    """Width and height in pixels, if annotated."""
