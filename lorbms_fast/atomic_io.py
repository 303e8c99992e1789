"""Files and folders that appear whole or not at all, and folders that one process at a time works in."""

import errno
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from lorbms_fast.errors import UserError

LOCK = "lock"
UNWRITABLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
    *(errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.EFBIG),
}
"""Errors of the operating system that mean that nothing can be written."""
ELSEWHERE = "choose another place"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to; on success it is synced to disk and takes `path`'s name.

    If the block raises, nothing is left and an older `path` stays as it was. A link stays one: what it leads to is
    written. What is no file, such as /dev/null or a pipe, is written to and not replaced. Raises UserError if there is
    a folder of this name, or nothing can be written there.

    >>> with TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "facts.json") as partial:
    ...         _ = partial.write_text("{}")
    ...     [path.name for path in Path(folder).iterdir()]
    ['facts.json']
    """
    with full_disk_named(path):
        if path.is_dir():
            raise UserError(f"{path} is a folder: name a file")
        if path.exists() and not path.is_file():
            with TemporaryDirectory() as aside:
                yield (content := Path(aside) / "content")
                with path.open("wb") as device:
                    device.write(content.read_bytes())
            return
        path = path.resolve() if path.is_symlink() else path
        _make_folder(path.parent)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with _creating(partial):
                partial.touch()
            mode = partial.stat().st_mode
            yield partial
            partial.chmod(mode)  # safetensors writes files that nobody else may read
            sync(partial)
            partial.replace(path)
            sync(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text as `atomic_write` does."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON for people to read, as `atomic_write` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` to fill; on success it is synced to disk and takes `path`'s name.

    If the block raises, nothing is left. Raises `UserError` when `path` exists already.
    """
    with full_disk_named(path):
        if path.exists():
            raise UserError(f"{path} exists already: choose another name or remove it first")
        _make_folder(path.parent)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        _make_folder(partial)
        try:
            readable = partial.stat().st_mode & 0o666
            yield partial
            for file in partial.rglob("*"):
                if file.is_file():
                    file.chmod(readable)
                sync(file)
            sync(partial)
            partial.rename(path)
            sync(path.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def remove_whole(folder: Path) -> None:
    """Rename a folder at once, then remove it: a kill leaves no half of it under the name."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    folder.rename(aside)
    shutil.rmtree(aside)


def clear_partials(folder: Path) -> None:
    """Remove what writers that were killed left in a folder; what a living process writes stays."""
    for path in folder.glob(".*.partial"):
        owner = path.name.split(".")[-2]
        if owner.isdigit() and not _alive(int(owner)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return process != os.getpid()


@contextmanager
def exclusive_lock(folder: Path, doing: str, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Make `folder`, unless it is there, and keep other processes out of it until the block ends.

    The lock is the kernel's: it ends with the process, however that ends. What is in the folder stays. The package
    filelock would do, but for folders that get another name meanwhile, as a prepared store does: it sees that a lock
    file was removed, not that its folder was renamed.

    `doing` is told to the process that comes second, as in "is preparing OUT". Raises UserError if another process is
    in the block, or, with `elsewhere` as the remedy, the folder cannot be written.
    """
    with full_disk_named(folder, elsewhere):
        descriptor = _locked(folder, doing)
    try:
        yield
    finally:
        os.close(descriptor)


def _locked(folder: Path, doing: str) -> int:
    while True:
        _make_folder(folder)
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the process before has just removed the folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), (folder / LOCK).stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            os.close(descriptor)
            raise UserError(f"another process {doing}: wait for it, or choose another name") from error
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    with _creating(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _creating(path: Path) -> Iterator[None]:
    """Turn the system's FileNotFoundError, as in /proc, into the refusal to create a file that it means."""
    try:
        yield
    except FileNotFoundError as error:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path)) from error


@contextmanager
def full_disk_named(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turn the operating system's refusal to write into a `UserError` that names `path` and a remedy.

    Where the block names a path of its own, the remedy is this one, unless it has its own as well.
    """
    try:
        yield
    except UserError as error:
        if not str(error).endswith(ELSEWHERE):
            raise
        raise UserError(str(error).removesuffix(ELSEWHERE) + elsewhere) from error.__cause__
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = f"free some space or {elsewhere}" if full else elsewhere
        raise UserError(f"cannot write {path}: {error.strerror}; {remedy}") from error


def check_room(place: Path, size: float, use: str, remedy: str) -> None:
    """Raise UserError where the disk of a place, which need not exist yet, has no room for some bytes."""
    there = next(folder for folder in (place.resolve(), *place.resolve().parents) if folder.exists())
    if size > (free := shutil.disk_usage(there).free):
        have = f"{free / 1e6:,.1f} MB are free on its disk"
        raise UserError(f"{place} needs {size / 1e6:,.1f} MB for {use} and {have}: {remedy}")


def check_writable(folder: Path) -> None:
    """Raise UserError where nothing can be written in a folder, which need not exist yet."""
    with full_disk_named(folder):
        there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        with _creating(folder), TemporaryFile(dir=there) as file:
            file.write(b"\0")
            file.flush()


def read_json(path: Path) -> Any:
    """Read a JSON file, in UTF-8 or, as its first bytes tell, in UTF-16 or UTF-32.

    Raises OSError, and ValueError if it is no JSON (JSONDecodeError), no Unicode (UnicodeDecodeError), or nested more
    deeply or with longer numbers than Python's parser bears.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError as error:
        raise ValueError(f"holds a number too long, of more than {sys.get_int_max_str_digits():,} digits") from error


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
