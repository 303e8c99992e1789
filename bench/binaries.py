"""Kernels compiled ahead of time, on a machine without a GPU, and what is read from the result."""

import hashlib
import json
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lorbms_fast.atomic_io import atomic_write
from lorbms_fast.measurement.launches import Launch

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
_TOOLS = Path(nvidia.__file__).parent / "bin"
CACHE = Path(__file__).parent / ".static"


@dataclass(frozen=True)
class Binary:
    """What a compiled kernel needs."""

    registers: int
    """Per thread."""
    local: int
    """Bytes of local memory per thread; more than nothing means spilled registers."""
    shared: int
    """Bytes of shared memory per program."""
    warps: int
    """Per program."""
    spills: int
    """Instructions that store to local memory."""
    tensor: int
    """Matrix instructions for tensor cores: HMMA, HGMMA, UTCMMA."""
    kind: str
    """The first of those found, or nothing."""


def compiled_before(launch: Launch, architecture: int) -> Binary | None:
    """What bench/.static has of a launch's kernel for sm_<architecture>."""
    place = _place(launch, architecture)
    return Binary(**json.loads(place.read_text())) if place.exists() else None


def _source(launch: Launch) -> ASTSource:
    return ASTSource(launch.kernel, launch.signature, launch.constants, launch.attributes)


def _place(launch: Launch, architecture: int) -> Path:
    key = f"{_source(launch).hash()} {launch.options} {architecture} {version('triton')}"
    return CACHE / f"{launch.name}-{architecture}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def binary(launch: Launch, architecture: int) -> Binary:
    """Compile a launch's kernel for sm_<architecture>, unless bench/.static has it."""
    before = compiled_before(launch, architecture)
    if before:
        return before
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(_source(launch), target=target, options=dict(launch.options))
    found = _read(compiled.asm["cubin"], compiled.metadata.shared, compiled.metadata.num_warps)
    with atomic_write(_place(launch, architecture)) as partial:
        partial.write_text(json.dumps(asdict(found)))
    return found


def _read(cubin: bytes, shared: int, warps: int) -> Binary:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _tool("cuobjdump", "--dump-resource-usage", file.name)
        code = _tool("nvdisasm", "-c", file.name)
    kinds = re.findall(r"\b(UTC\w*MMA|HGMMA|HMMA)\b", code)
    return Binary(
        registers=int(_number(r"REG:(\d+)", usage)),
        local=int(_number(r"STACK:(\d+)", usage)),
        shared=shared,
        warps=warps,
        spills=len(re.findall(r"\bSTL\b", code)),
        tensor=len(kinds),
        kind=kinds[0] if kinds else "",
    )


def _number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern} in what cuobjdump says: {text[:200]}")
    return found.group(1)


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([_TOOLS / name, *arguments], check=True, capture_output=True, text=True).stdout
