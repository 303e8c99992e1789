"""Limits of the GPUs that kernels are compiled for, from NVIDIA's programming guide and data sheets."""

from dataclasses import dataclass

from bench.binaries import Binary
from bench.work import Work


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


@dataclass(frozen=True)
class Gpu:
    """Peak rates, dense, without boost beyond the data sheet."""

    name: str
    architecture: int
    multiprocessors: int
    half: float
    """FLOP/s of bfloat16 and float16 products with float32 sums on tensor cores."""
    tf32: float
    bandwidth: float
    """Bytes/s."""

    def roofline(self, work: Work, programs: int, arithmetic: str) -> float:
        """Seconds that a launch takes at least; a grid smaller than the GPU has only its programs' share of it."""
        share = min(1.0, programs / self.multiprocessors)
        peak = self.tf32 if arithmetic == "fp32" else self.half
        # A multiprocessor alone draws about a thirtieth of the bandwidth at most: 4 of 132 do not fill the memory bus.
        return max(work.flops / (peak * share), work.bytes / (self.bandwidth * min(1.0, 4 * share)))


GPUS = (
    Gpu("A100", 80, 108, 312e12, 156e12, 2.04e12),
    Gpu("RTX 4090", 89, 128, 165e12, 82.6e12, 1.01e12),
    Gpu("H100", 90, 132, 989e12, 495e12, 3.35e12),
    Gpu("B200", 100, 148, 2250e12, 1125e12, 8.0e12),
)
