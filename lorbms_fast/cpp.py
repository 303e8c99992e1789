"""Libraries from C++ sources, compiled once for a source, a compiler and a processor, and kept in the user's cache.

Torch is not needed: processes that prepare images do without.
"""

import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ctypes import CDLL
from functools import cache
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.errors import UserError

OFF = "LORBMS_FAST_NO_NATIVE"
"""Environment variable; if it is set, nothing is compiled, and operations of torch's and numpy's run."""

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")
# torch counts threads the same way only where both use the OpenMP library that it brings along.
_SYSTEM = sys.platform == "linux"

_wanted = True


def library(source: Path, headers: Path | None = None) -> CDLL | None:
    """Load the library of one source file; None without a compiler, or inside `native_loops(False)`.

    Warns once, and is None, without a compiler, or if it refuses the source, which may include headers beside it and of
    a folder.
    """
    return _library(source, headers) if _wanted else None


@contextmanager
def native_loops(wanted: bool) -> Iterator[None]:
    """Allow or forbid libraries to operations inside the block, in every thread: to compare the two."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before


def compiler() -> list[str]:
    """Find the machine's C++ compiler: CXX, a path or several words (`ccache g++`), or c++; [] where there is none."""
    named = os.environ.get("CXX", "c++")
    if shutil.which(named):  # whose path may have spaces
        return [named]
    try:
        words = shlex.split(named)
    except ValueError:  # a quote is not closed
        return []
    return words if words and shutil.which(words[0]) else []


@cache
def _library(source: Path, headers: Path | None) -> CDLL | None:
    if not _SYSTEM or OFF in os.environ:
        return None
    command = compiler()
    if not command:
        _warn_once(
            f"C++ loops are not built, slower operations run: install g++, name a compiler in CXX, or set {OFF}=1"
        )
        return None
    try:
        version = subprocess.run([*command, "--version"], capture_output=True, check=True).stdout
        options = [*command[1:], *FLAGS]
        name = f"{source.parent.name}-{_key(source, headers, options, version)}.so"
        compiling = [command[0], *options, *([] if headers is None else [f"-I{headers}"]), str(source)]
        return _loaded(name, compiling)
    except (OSError, subprocess.CalledProcessError) as error:
        warnings.warn(f"{source.name} could not be compiled, slower loops run instead: {_reason(error)}", stacklevel=2)
        return None


def _loaded(name: str, compiling: list[str]) -> CDLL:
    """Load a library from the cache, where it is put if it is not there; where that fails, one of this process's."""
    with suppress(OSError):
        path = _cache() / name
        if path.exists():
            return CDLL(str(path))
    with TemporaryDirectory() as folder:
        made = Path(folder) / name
        subprocess.run([*compiling, "-o", str(made)], capture_output=True, check=True)
        try:
            path = _cache() / name
            with atomic_write(path) as partial:
                shutil.copyfile(made, partial)
            return CDLL(str(path))
        except (OSError, UserError) as error:
            found = CDLL(str(made))
            why = str(error).replace(f"/{name}", "")  # of all libraries the same
            _warn_once(f"C++ loops are compiled anew by each process: {why}; name another place in XDG_CACHE_HOME")
            return found


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return error.stderr.decode(errors="replace").strip() or f"exit status {error.returncode}"
    return str(error)


@cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def _cache() -> Path:
    """Find the user's cache folder, where nobody else may write: what lies there is executed."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorbms-fast" / "native"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"others may write into {path}: chmod 700 it")
    if not os.access(path, os.W_OK):
        raise PermissionError(f"{path} cannot be written")
    return path


def _key(source: Path, headers: Path | None, options: list[str], version: bytes) -> str:
    included = sorted(header for folder in (source.parent, headers) if folder for header in folder.glob("*.h"))
    parts = [source.read_bytes(), *(header.read_bytes() for header in included)]
    parts += [version, " ".join(options).encode(), _processor().encode()]
    return sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """Describe the processor's abilities: a home directory may be shared by machines of several kinds."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    found = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return platform.machine() + "".join(sorted({*found}))
