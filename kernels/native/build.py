"""C++ sources to libraries: compiled once for a source, a compiler and a processor, and kept in the user's cache."""

import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL
from functools import cache
from hashlib import sha256
from pathlib import Path

from lorbms_fast.files import whole_file

OFF = "LORBMS_FAST_NO_NATIVE"
"""Environment variable; if it is set, nothing is compiled and torch's own operations run."""

FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC")
HEADERS = Path(__file__).parent
# torch counts threads the same way only where both use the OpenMP library that it brings along.
_SYSTEM = sys.platform == "linux"

_wanted = True


def library(source: Path) -> CDLL | None:
    """The library of one source file; None without a compiler, or inside `native_loops(False)`.

    Warns once, and is None, if the compiler refuses the source.
    """
    return _library(source) if _wanted else None


@contextmanager
def native_loops(wanted: bool) -> Iterator[None]:
    """Let operations inside the block, in every thread, use libraries or not: to compare the two."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before


def compiler() -> str | None:
    """The machine's C++ compiler: what CXX names, or c++; None where there is none."""
    return shutil.which(os.environ.get("CXX", "c++"))


@cache
def _library(source: Path) -> CDLL | None:
    command = compiler()
    if not _SYSTEM or OFF in os.environ or command is None:
        return None
    try:
        version = subprocess.run([command, "--version"], capture_output=True, check=True).stdout
        path = _cache() / f"{source.parent.name}-{_key(source, version)}.so"
        if not path.exists():
            with whole_file(path) as partial:
                arguments = [*FLAGS, f"-I{HEADERS}", str(source), "-o", str(partial)]
                subprocess.run([command, *arguments], capture_output=True, check=True)
        return CDLL(str(path))
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip() or f"exit status {error.returncode}"
    except OSError as error:
        reason = str(error)
    warnings.warn(f"{source.name} could not be compiled, torch's slower loops run instead: {reason}", stacklevel=2)
    return None


def _cache() -> Path:
    """The user's, where nobody else may write: what lies there is executed."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorbms-fast" / "native"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise PermissionError(f"{path} belongs to another user")
    return path


def _key(source: Path, version: bytes) -> str:
    parts = [source.read_bytes(), *(header.read_bytes() for header in sorted(HEADERS.glob("*.h")))]
    parts += [version, " ".join(FLAGS).encode(), _processor().encode()]
    return sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """What the processor can do: a home directory may be shared by machines of several kinds."""
    lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    found = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return platform.machine() + "".join(sorted({*found}))
