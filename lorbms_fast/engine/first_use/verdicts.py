"""Verdicts on a machine's kernels, kept in the user's cache folder: a small file, safe to delete."""

import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from lorbms_fast import __version__, kernels
from lorbms_fast.atomic_io import read_json, write_text
from lorbms_fast.engine.first_use.judging import Verdict
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.progress import tqdm

FORMAT = {"format": "lorbms-fast kernels", "version": 1}
DRIVER = Path("/proc/driver/nvidia/version")


def machine(device: torch.device) -> dict[str, str]:
    """Name what verdicts depend on: the GPU, its driver, torch, Triton, this program and its kernels."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    driver = DRIVER.read_text().splitlines()[0] if DRIVER.exists() else ""
    triton = "none"
    if dispatch.HAS_TRITON:
        import triton as installed

        triton = installed.__version__
    return {
        "gpu": gpu, "driver": driver, "torch": torch.__version__, "triton": triton, "lorbms-fast": __version__,
        "kernels": sources(),
    }  # fmt: skip


def place(of: Mapping[str, str]) -> Path:
    """Name the file of a machine's verdicts."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorbms-fast"
    return cache / f"kernels-{sha256(json.dumps(of).encode()).hexdigest()[:12]}.json"


def sources() -> str:
    """Sum up the files that operations are made of: an edited kernel is another one, whatever its version says."""
    digest = sha256()
    for file in sorted(Path(kernels.__path__[0]).rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def load(path: Path, of: Mapping[str, str]) -> dict[str, Verdict]:
    """Read a machine's verdicts, none where there is no file; one that cannot be read is told of and done again."""
    try:
        return _read(path, of)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        tqdm.write(f"{path} cannot be used ({reason}): all kernels are tried again")
        return {}


def _read(path: Path, of: Mapping[str, str]) -> dict[str, Verdict]:
    content = read_json(path)
    if not isinstance(content, dict) or {name: content.get(name) for name in FORMAT} != FORMAT:
        raise ValueError("is of another version")
    if content.get("machine") != of:
        raise ValueError("is another machine's")
    verdicts = _each(content.get("verdicts"), lambda value: math.nan if value is None else value)
    return TypeAdapter(dict[str, Verdict]).validate_python(verdicts)


def save(path: Path, of: Mapping[str, str], verdicts: Mapping[str, Verdict]) -> None:
    """Write verdicts whole, beside those of other operations that the file has; where none can be written, say so.

    Those that depend on a passing state of the machine are left out: the next run finds them again.
    """
    kept: dict[str, Verdict] = {}
    with suppress(OSError, ValueError):  # another run may have written meanwhile
        kept = _read(path, of)
    kept |= {key: verdict for key, verdict in verdicts.items() if not verdict.passing}
    content: dict[str, Any] = FORMAT | {"machine": of}
    content |= {"verdicts": {key: asdict(verdict) for key, verdict in sorted(kept.items())}}
    try:
        write_text(path, as_json(content))
    except UserError as error:
        tqdm.write(f"{error}: what was found of the kernels is not kept, and the next run tries them again")


def as_json(content: Any) -> str:
    """Write JSON, which has no NaN and no infinity: `null` stands for an error or a time that is no number."""
    finite = _each(content, lambda value: None if isinstance(value, float) and not math.isfinite(value) else value)
    return json.dumps(finite, indent=1, allow_nan=False) + "\n"


def _each(content: Any, found: Callable[[Any], Any]) -> Any:
    """Replace all values inside dicts and lists."""
    if isinstance(content, dict):
        return {name: _each(value, found) for name, value in content.items()}
    if isinstance(content, list):
        return [_each(value, found) for value in content]
    return found(content)
