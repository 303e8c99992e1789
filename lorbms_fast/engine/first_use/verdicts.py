"""Verdicts on a machine's kernels, kept in the user's cache folder: a small file, safe to delete."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from lorbms_fast import __version__
from lorbms_fast.atomic_io import atomic_write, read_json
from lorbms_fast.engine.first_use.judging import Verdict
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.progress import tqdm

FORMAT = {"format": "lorbms-fast kernels", "version": 1}
DRIVER = Path("/proc/driver/nvidia/version")


def machine(device: torch.device) -> dict[str, str]:
    """Name what verdicts depend on: the GPU, its driver, torch, Triton and this program."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU"
    driver = DRIVER.read_text().splitlines()[0] if DRIVER.exists() else ""
    triton = "none"
    if dispatch.TRITON:
        import triton as installed

        triton = installed.__version__
    return {"gpu": gpu, "driver": driver, "torch": torch.__version__, "triton": triton, "lorbms-fast": __version__}


def place(of: Mapping[str, str]) -> Path:
    """Name the file of a machine's verdicts."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorbms-fast"
    return cache / f"kernels-{sha256(json.dumps(of).encode()).hexdigest()[:12]}.json"


def load(path: Path, of: Mapping[str, str]) -> dict[str, Verdict]:
    """Read a machine's verdicts, none where there is no file; one that cannot be read is told of and done again."""
    try:
        content = read_json(path)
        if not isinstance(content, dict) or {name: content.get(name) for name in FORMAT} != FORMAT:
            raise ValueError("is of another version")
        if content.get("machine") != of:
            raise ValueError("is another machine's")
        return TypeAdapter(dict[str, Verdict]).validate_python(content.get("verdicts"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, ValidationError) as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        tqdm.write(f"{path} cannot be used ({reason}): all kernels are tried again")
        return {}


def save(path: Path, of: Mapping[str, str], verdicts: Mapping[str, Verdict]) -> None:
    """Write verdicts whole; where nothing can be written, say that they will be found again by the next run."""
    content: dict[str, Any] = FORMAT | {"machine": of}
    content |= {"verdicts": {key: asdict(verdict) for key, verdict in sorted(verdicts.items())}}
    try:
        with atomic_write(path) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n")
    except UserError as error:
        tqdm.write(f"{error}: what was found of the kernels is not kept, and the next run tries them again")
