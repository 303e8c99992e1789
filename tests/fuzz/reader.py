"""Readers of strangers' files; each has to read a damaged file or to say on one line what is wrong."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorbms_fast.errors import UserError

LONGEST = 1000
"""Characters of a message: more than a screen's width is not one line any more."""
_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Reader:
    """A reader of files."""

    name: str
    read: Callable[[bytes, Path], object]
    """Puts bytes into a file of an empty folder, where the reader looks for it, has it read and uses what comes."""
    seeds: Callable[[], Sequence[bytes]]
    """Files that are in order, and some that once were trouble."""
    names: tuple[str, ...]
    """One of these stands in every message: the file's name, as a rule."""
    documents: Callable[[], Sequence[object]] = list
    """The same as JSON documents, for formats in which a changed byte is no more than bad JSON."""
    written: Callable[[object], bytes] = bytes
    """A document as bytes."""


def ask(reader: Reader, data: bytes) -> UserError | None:
    """Have bytes read; what the reader said against them, if anything.

    Raises:
        AssertionError: that is no message for a user.
        Exception: what else the reader raised: it should not have.
    """
    with tempfile.TemporaryDirectory(prefix="stranger-", dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
        try:
            reader.read(data, Path(folder))
        except UserError as error:
            check(str(error), reader.names)
            return error
    return None


def check(message: str, names: Sequence[str] = ()) -> None:
    """See that a message is one line that can be printed, names the file, and says more than that.

    Raises:
        AssertionError: it is not so.
    """
    assert message.isprintable(), f"not one printable line: {message!r}"
    assert len(message) <= LONGEST, f"{len(message)} characters: {message}"
    assert not names or any(name in message for name in names), f"names none of {names}: {message}"
    assert len(message.rpartition(": ")[2].split()) >= 2, f"says no remedy: {message}"
