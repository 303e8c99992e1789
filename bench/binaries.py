"""Kernels compiled ahead of time, on a machine without a GPU, and what is read from the result."""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import triton
from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from lorbms_fast.atomic_io import write_json
from lorbms_fast.errors import said
from lorbms_fast.measurement.gpus import MULTIPROCESSORS
from lorbms_fast.measurement.launches import Launch

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
_TOOLS = Path(nvidia.__file__).parent / "bin"
CACHE = Path(__file__).parent / ".static"


@dataclass(frozen=True)
class Binary:
    """Needs of a compiled kernel."""

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
    in_loops: bool = True
    """Registers are spilled or restored inside a loop; True where nobody has looked."""

    def resident(self, architecture: int) -> int:
        """Programs that fit on one multiprocessor at a time."""
        return MULTIPROCESSORS[architecture].resident(self.warps, self.registers, self.shared)

    def occupancy(self, architecture: int) -> float:
        """Share of a multiprocessor's warps that can be in flight."""
        return self.resident(architecture) * self.warps / MULTIPROCESSORS[architecture].warps


def compiled_before(launch: Launch, architecture: int) -> Binary | str | None:
    """Binary that bench/.static has of a launch's kernel for sm_<architecture>, or why there is none."""
    place = _place(launch, architecture)
    if not place.exists():
        return None
    kept = json.loads(place.read_text())
    return kept if isinstance(kept, str) else Binary(**kept)


def forget_lines() -> None:
    """Have kernels known by their sources alone: Triton hashes lines too, and an edit would change all below it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("lorbms_fast.kernels"):
            for value in vars(module).values():
                kernel = getattr(value, "fn", None) if not isinstance(value, JITFunction) else value
                if isinstance(kernel, JITFunction):
                    kernel.starting_line_number, kernel.hash = 1, None


def _source(launch: Launch) -> ASTSource:
    return ASTSource(launch.kernel, launch.signature, launch.constants, launch.attributes)


def _place(launch: Launch, architecture: int) -> Path:
    key = f"{_source(launch).hash()} {launch.options} {architecture} {version('triton')}"
    return CACHE / f"{launch.name}-{architecture}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def binary(launch: Launch, architecture: int) -> Binary | str:
    """Compile a launch's kernel for sm_<architecture>, unless bench/.static has it; says why where that fails."""
    found = compiled_before(launch, architecture)
    if found is not None:
        return found
    target = GPUTarget("cuda", architecture, 32)
    try:
        compiled = triton.compile(_source(launch), target=target, options=dict(launch.options))
        found = _read(compiled.asm["cubin"], compiled.metadata.shared, compiled.metadata.num_warps)
    except (OSError, MemoryError) as error:  # of this machine, now
        return said(error)
    except Exception as error:
        found = said(error)
    write_json(_place(launch, architecture), found if isinstance(found, str) else asdict(found))
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
        in_loops=spills_in_loops(code),
    )


def spills_in_loops(code: str) -> bool:
    """Say whether a disassembled kernel stores or loads spilled registers between a label and a jump back to it."""
    labels: dict[str, int] = {}
    places: list[int] = []
    loops: list[tuple[int, int]] = []
    for number, line in enumerate(code.splitlines()):
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label.group(1)] = number
        elif jump := re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line):
            loops.append((labels.get(jump.group(1), number), number))
        elif re.search(r"\b(STL|LDL)\b", line):
            places.append(number)
    return any(begin < place < end for place in places for begin, end in loops)


def _number(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise ValueError(f"no {pattern} in what cuobjdump says: {text[:200]}")
    return found.group(1)


def _tool(name: str, *arguments: str) -> str:
    return subprocess.run([_TOOLS / name, *arguments], check=True, capture_output=True, text=True).stdout
