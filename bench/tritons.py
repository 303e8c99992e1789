"""`python -m bench.tritons VERSION...`: print folders with these versions of Triton, for PYTHONPATH.

A CUDA build of torch requires one version of Triton, and kernels must compile with each that users have. Versions lie
beside each other in the cache folder, where pip puts them once.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REQUIRED_BY = {"3.6.0": "2.11", "3.7.0": "2.12", "3.7.1": "2.13", "3.8.0": "2.14", "3.9.0": "2.15"}
"""Versions of Triton, and the torch whose CUDA build requires each."""
OLDEST = next(iter(REQUIRED_BY))


def folder_of(version: str) -> Path:
    """Install a version, unless it is there, and return its folder; CalledProcessError where pip cannot get it."""
    tag = f"triton-{version}-cp{sys.version_info.major}{sys.version_info.minor}"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorbms-fast" / tag
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = tempfile.mkdtemp(prefix=f"{tag}-", dir=folder.parent)
        try:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target"]
            subprocess.run([*command, partial, f"triton=={version}"], check=True, capture_output=True, text=True)
            Path(partial).rename(folder)
        except OSError:
            if not folder.exists():  # where another process was faster, its folder is as good
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def environment_of(version: str) -> dict[str, str]:
    """Environment variables of a process that imports this version."""
    return os.environ | {"PYTHONPATH": str(folder_of(version))}


if __name__ == "__main__":
    print("\n".join(str(folder_of(version)) for version in sys.argv[1:] or REQUIRED_BY))
