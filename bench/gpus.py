"""How many programs of a compiled kernel a GPU's multiprocessor holds."""

from bench.binaries import Binary
from lorbms_fast.measurement.gpus import MULTIPROCESSORS


def resident(binary: Binary, architecture: int) -> int:
    """Programs that fit on one multiprocessor at a time."""
    return MULTIPROCESSORS[architecture].resident(binary.warps, binary.registers, binary.shared)


def occupancy(binary: Binary, architecture: int) -> float:
    """Share of a multiprocessor's warps that can be in flight."""
    return resident(binary, architecture) * binary.warps / MULTIPROCESSORS[architecture].warps
