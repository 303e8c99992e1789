"""Folders that are not on this machine: object stores and others, as fsspec reaches them (`s3://bucket/photos`)."""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING, Any

from filelock import FileLock  # it waits, which `exclusive_lock` does not

from lorbms_fast.atomic_io import atomic_write, clear_partials, full_disk_named
from lorbms_fast.dataloader.image_file import ByteRange, is_inside
from lorbms_fast.errors import UserError, one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

OBJECT_STORES = ("s3", "gs", "az")
"""Schemes that obstore serves where it is installed; others, and these without it, are left to fsspec's own choice."""
JAVA = ", and that Java and Hadoop's libhdfs are installed (JAVA_HOME, HADOOP_HOME, CLASSPATH)"
ASKED_LAST = "169.254.169.254"
"""Address that machines in a cloud ask for credentials when they have no others."""
CACHE = "LORBMS_CACHE"
"""Environment variable that names the folder of copies."""
MAX_GAP, MAX_BLOCK = 256 << 10, 16 << 20
"""Bytes between two photographs up to which one request reads both, and bytes of a request."""
AT_ONCE = 8
"""Number of requests at a time: with `MAX_BLOCK` they bound the memory."""
VERSION = ("size", "ETag", "etag", "e_tag", "mtime", "LastModified", "updated", "created", "last_modified")
"""Names that fsspec's file systems have for the things that change with a file's content."""


class Unreachable(UserError, OSError):
    """A folder elsewhere that cannot be read or written now; trying again may help."""


def url_of(path: Path | str) -> str | None:
    """Find the URL that a path stands for; None for a path of this machine's file system.

    pathlib makes one slash of two, which is undone here.

    >>> url_of(Path("s3://bucket/photos/")), url_of(Path("photos")), url_of("file:///photos")
    ('s3://bucket/photos', None, None)
    """
    found = re.fullmatch(r"([a-z][a-z0-9+.-]+):(?:/+(.*))?", str(path))
    if found is None or found[1] in ("file", "local"):
        return None
    if not found[2]:
        raise UserError(f"{found[1]}:// names no place: write it as {found[1]}://BUCKET/NAME")
    return f"{found[1]}://{found[2].rstrip('/')}"


def without_file_scheme(path: Path) -> Path:
    """Turn `file:///photos` into `/photos`.

    >>> str(without_file_scheme(Path("file:///photos"))), str(without_file_scheme(Path("s3://b/photos")))
    ('/photos', 's3:/b/photos')
    """
    found = re.fullmatch(r"(?:file|local):/*(/.*)", str(path))
    return Path(found[1]) if found else path


def full_name(path: Path) -> str:
    """Name a folder so that it is found from everywhere: its URL, or its absolute path."""
    return url_of(path) or str(path.resolve())


@dataclass(frozen=True)
class Place:
    """A folder that several machines reach: one of their common file system, or elsewhere, by its URL."""

    name: str
    """A URL, or an absolute path."""

    @classmethod
    def of(cls, path: Path) -> "Place":
        """Make the place of a path or URL."""
        return cls(full_name(path))

    def __truediv__(self, name: str) -> "Place":
        return Place(f"{self.name}/{name}")

    @property
    def folder(self) -> Path | None:
        """The folder itself, where it is in the machine's file system."""
        return None if url_of(self.name) else Path(self.name)

    @cached_property
    def _elsewhere(self) -> "tuple[AbstractFileSystem, str]":
        with self._reached():
            from fsspec.core import url_to_fs  # here: processes that decode local files do without it

            if self._is_by_obstore:
                import_module("obstore.fsspec").register(self.name.partition(":")[0])
            system, root = url_to_fs(self.name)
            return system, root.rstrip("/")

    @property
    def _is_by_obstore(self) -> bool:
        return self.name.partition(":")[0] in OBJECT_STORES and find_spec("obstore") is not None

    def __reduce__(self) -> tuple[type["Place"], tuple[str]]:
        return type(self), (self.name,)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except ImportError as error:
            raise UserError(
                f"{self.name} cannot be reached: {error} (for s3://, gs:// and az:// "
                "pip install 'lorbms-fast[train,cluster]'  will do)"
            ) from error
        except ValueError as error:
            raise UserError(f"{self.name} cannot be reached: {error}") from error
        except Exception as error:  # of the store's own library, of any kind
            raise Unreachable(
                f"{self.name} cannot be reached ({_said(error)}): check its name, your credentials "
                f"and the network{JAVA if self.name.startswith('hdfs:') else ''}"
            ) from error

    def names(self) -> list[str]:
        """List the files in the folder and below, relative to it; none where there is no such folder."""
        return sorted(self.versions())

    def versions(self) -> dict[str, str]:
        """Map the files in the folder and below to texts that change with their content."""
        if self.folder is not None:
            paths = (path for path in self.folder.rglob("*") if path.is_file())
            return {path.relative_to(self.folder).as_posix(): str(path.stat().st_mtime_ns) for path in paths}
        system, root = self._elsewhere
        with self._reached():
            system.invalidate_cache()
            found: dict[str, Any] = system.find(root, detail=True)
        return {name.removeprefix(root).lstrip("/"): _version(info) for name, info in found.items()}

    def exists(self, name: str) -> bool:
        """Check for a file in the folder."""
        if self.folder is not None:
            return (self.folder / name).is_file()
        system, root = self._elsewhere
        with self._reached():
            system.invalidate_cache()
            return bool(system.isfile(f"{root}/{name}"))

    def fetch(self, name: str, target: Path) -> Path:
        """Copy a file of the folder to a local path in blocks, whole or not at all."""
        if self.folder is not None:
            raise ValueError(f"{self.name} is on this machine")
        info = self._info(name)
        starts = range(0, info["size"], MAX_BLOCK)
        with atomic_write(target) as partial, partial.open("r+b", buffering=0) as file:

            def copy(start: int) -> None:
                _write_at(file.fileno(), self._cat(name, start, min(start + MAX_BLOCK, starts.stop)), start)

            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(copy, starts))
            if len(starts) > 1 and _version(self._info(name)) != _version(info):
                raise Unreachable(f"{self.name}/{name} was written anew while it was copied: run the command again")
        return target

    def _info(self, name: str) -> dict[str, Any]:
        system, root = self._elsewhere
        with self._reached():
            system.invalidate_cache()
            found: dict[str, Any] = system.info(f"{root}/{name}")
            return found

    def _cat(self, name: str, start: int | None, end: int | None) -> bytes:
        system, root = self._elsewhere
        with self._reached():
            content: bytes = system.cat_file(f"{root}/{name}", start, end)
            return content

    def read(self, name: str) -> bytes:
        """Read a file of the folder."""
        if self.folder is not None:
            return (self.folder / name).read_bytes()
        return self._cat(name, None, None)

    def near(self, name: str) -> Path:
        """Find a file of the folder on this machine's disk, where it is copied to if it lies elsewhere."""
        if self.folder is not None:
            return self.folder / name
        copy = self.copies / name
        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(copy.with_name(f".{copy.name}.lock")):
                if not copy.is_file():
                    self.fetch(name, copy)
        return copy

    @property
    def copies(self) -> Path:
        """The folder that files of a folder elsewhere are copied to, on this machine."""
        base = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "lorbms-fast")
        return base / sha256(self.name.encode()).hexdigest()[:16] / self.name.rpartition("/")[2]

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """Yield a local path to write a file to, which appears in the folder, whole, when the block ends."""
        if self.folder is not None:
            with atomic_write(self.folder / name) as partial:
                yield partial
            return
        with scratch() as aside:
            yield (content := aside / "content")
            self.put(content, name)

    def put(self, path: Path, name: str) -> None:
        """Copy a local file into a folder elsewhere."""
        system, root = self._elsewhere
        with self._reached():
            system.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
            system.put_file(str(path), f"{root}/{name}")

    def create(self, name: str, content: bytes) -> None:
        """Write a small file unless it is there; of several processes that do so at once one wins.

        So it is on S3, GCS and Azure by obstore; elsewhere, and where a server of S3's kind knows no conditions, it is
        looked for first.
        """
        if self._is_by_obstore:
            obstore, stores = import_module("obstore"), import_module("obstore.store")
            try:
                obstore.put(stores.from_url(self.name), name, content, mode="create")
                return
            except obstore.exceptions.AlreadyExistsError:
                return
            except obstore.exceptions.BaseError:  # what cannot be reached is told below
                pass
        if not self.exists(name):
            with self.write(name) as path:
                path.write_bytes(content)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif self.names():
            system, root = self._elsewhere
            with self._reached(), suppress(FileNotFoundError):  # another process may remove it too
                system.rm(root, recursive=True)


def _version(info: Mapping[str, Any]) -> str:
    return repr([info.get(key) for key in VERSION])


def _said(error: Exception) -> str:
    """Sentence of a store's library, which may say pages: an S3 server's own, if there is one."""
    text = str(error).partition("Debug source:")[0]
    if ASKED_LAST in text:
        return "no credentials are in the environment: for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    found = re.search("<Message>([^<]+)", text)
    return f"{type(error).__name__}: {one_line(found[1] if found else text, 300)}"


def _write_at(file: int, data: bytes, start: int) -> None:
    """Write all of some bytes at a place in an open file; the system may take fewer at a time."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, start)
        start, rest = start + written, rest[written:]


def copied(path: Path) -> Path:
    """Copy a folder from elsewhere to this machine, once for all its processes, and return the copy.

    Files that are here already are kept, unless they have changed since. A path of this machine is returned as it is.

    Raises:
        UserError: it cannot be reached, or the disk is too small.
    """
    url = url_of(path)
    if url is None:
        return without_file_scheme(path)
    place = Place(url)
    target = place.copies
    target.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name("lock")):
        noted = target.with_name("versions")
        noted.mkdir(exist_ok=True)
        versions = {name: version for name, version in place.versions().items() if "/" not in name}

        def copy(name: str) -> None:
            note = noted / name
            if (target / name).is_file() and note.is_file() and note.read_text() == versions[name]:
                return
            note.unlink(missing_ok=True)
            place.fetch(name, target / name)
            note.write_text(versions[name])

        for file in target.iterdir():
            if file.is_file() and file.name not in versions:
                file.unlink()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(copy, sorted(versions)))
    return target


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty local folder that goes with the block, or, where this process is killed, with another's next."""
    with TemporaryDirectory(prefix=".", suffix=f".{os.getpid()}.partial", dir=_scratch_base()) as folder:
        yield Path(folder)


@cache
def _scratch_base() -> Path:
    base = Path(gettempdir(), f"lorbms-fast-{os.getuid()}")
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise UserError(f"{base} is not yours, whoever made it could change what is copied: choose another TMPDIR")
    clear_partials(base)
    return base


@contextmanager
def nearby(root: Path, places: Sequence[ByteRange]) -> Iterator[Path]:
    """Yield a folder of this machine in which some photographs of `root` can be read: `root` itself, or copies.

    Of files elsewhere only the bytes that are asked for are copied, each to its place in a file with holes, by few
    requests for neighbouring ones. What is missing there is missing here.
    """
    url = url_of(root)
    if url is None:
        yield root
        return
    with scratch() as folder:
        copy_ranges(Place(url), places, folder)
        yield folder


def copy_ranges(place: Place, places: Sequence[ByteRange], folder: Path) -> None:
    """Copy the bytes of photographs to files of the same names below a local folder."""
    from fsspec.utils import merge_offset_ranges

    wanted = [one for one in places if is_inside(one.path) and one.offset >= 0 and (one.length or 0) >= 0]
    ends = [None if one.length is None else one.offset + one.length for one in wanted]
    paths, starts, ends = merge_offset_ranges(
        [one.path for one in wanted], [one.offset for one in wanted], ends, MAX_GAP, MAX_BLOCK
    )

    def copy(path: str, start: int, end: int | None) -> None:
        try:
            data = place._cat(path, None if end is None else start, end)
        except Unreachable as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return
            raise
        with full_disk_named(folder):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
            with (folder / path).open("r+b", buffering=0) as file:
                _write_at(file.fileno(), data, start)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(copy, paths, starts, ends))
