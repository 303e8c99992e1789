"""Limits of the GPUs that kernels are compiled for, from NVIDIA's programming guide and data sheets."""

from dataclasses import dataclass

from bench.binaries import Binary


@dataclass(frozen=True)
class Multiprocessor:
    """What one multiprocessor holds at a time."""

    warps: int
    programs: int
    shared: int
    """Bytes, of which each program takes 1024 more than it asks for."""


MULTIPROCESSORS = {
    80: Multiprocessor(64, 32, 164 * 1024),
    86: Multiprocessor(48, 16, 100 * 1024),
    89: Multiprocessor(48, 24, 100 * 1024),
    90: Multiprocessor(64, 32, 228 * 1024),
    100: Multiprocessor(64, 32, 228 * 1024),
    120: Multiprocessor(48, 24, 100 * 1024),
}
_REGISTERS = 65_536


def resident(binary: Binary, architecture: int) -> int:
    """Programs that fit on one multiprocessor at a time."""
    limit = MULTIPROCESSORS[architecture]
    per_warp = -(-binary.registers * 32 // 256) * 256
    by_registers = _REGISTERS // per_warp // binary.warps
    return min(limit.programs, limit.warps // binary.warps, limit.shared // (binary.shared + 1024), by_registers)


def occupancy(binary: Binary, architecture: int) -> float:
    """Share of a multiprocessor's warps that can be in flight."""
    return resident(binary, architecture) * binary.warps / MULTIPROCESSORS[architecture].warps
