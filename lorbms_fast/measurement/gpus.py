"""GPUs by what NVIDIA's data sheets say of them."""

import re
from dataclasses import dataclass

from lorbms_fast.measurement.work import Work


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor, for all programs that it holds at a time; registers are 65,536 in all of them."""

    warps: int
    programs: int
    shared: int
    """Bytes, of which each program takes 1024 more than it asks for."""

    def resident(self, warps: int, registers: int, shared: int) -> int:
        """Programs that fit at a time, each of so many warps, registers a thread and bytes of shared memory."""
        per_warp = -(-registers * 32 // 256) * 256
        by_registers = 65_536 // per_warp // warps
        return min(self.programs, self.warps // warps, self.shared // (shared + 1024), by_registers)


MULTIPROCESSORS = {
    80: Multiprocessor(64, 32, 164 * 1024),
    86: Multiprocessor(48, 16, 100 * 1024),
    89: Multiprocessor(48, 24, 100 * 1024),
    90: Multiprocessor(64, 32, 228 * 1024),
    100: Multiprocessor(64, 32, 228 * 1024),
    120: Multiprocessor(48, 24, 100 * 1024),
}
"""By compute capability, times ten: CUDA C++ Programming Guide, technical specifications per compute capability."""


@dataclass(frozen=True)
class Gpu:
    """Peak rates, dense, without boost beyond the data sheet."""

    name: str
    architecture: int
    multiprocessors: int
    clock: float
    """Hz at which the rates are reached: the published boost clock."""
    half: float
    """FLOP/s of bfloat16 and float16 products with float32 sums on tensor cores."""
    tf32: float
    bandwidth: float
    """Bytes/s."""
    memory: float
    """Bytes."""

    def roofline(self, work: Work, programs: int, arithmetic: str) -> float:
        """Seconds that a launch takes at least; a grid smaller than the GPU has only its programs' share of it."""
        share = min(1.0, programs / self.multiprocessors)
        peak = self.tf32 if arithmetic == "fp32" else self.half
        # A multiprocessor alone draws about a thirtieth of the bandwidth at most: 4 of 132 do not fill the memory bus.
        return max(work.flops / (peak * share), work.bytes / (self.bandwidth * min(1.0, 4 * share)))


# Where a data sheet gives rates with sparsity, half of them. A100 80GB SXM, H100 SXM, H200 SXM and L40S: NVIDIA's data
# sheets. RTX 4090: Ada GPU architecture, appendix A. RTX 5090: RTX Blackwell GPU architecture, appendix A (FP32
# accumulate). B200: HGX B200 data sheet, an eighth of it; its clock is not published, 1.85 GHz assumed.
GPUS = (
    Gpu("A100", 80, 108, 1.41e9, 312e12, 156e12, 2.04e12, 80e9),
    Gpu("RTX 4090", 89, 128, 2.52e9, 165.2e12, 82.6e12, 1.008e12, 24e9),
    Gpu("L40S", 89, 142, 2.52e9, 362e12, 183e12, 0.864e12, 48e9),
    Gpu("RTX 5090", 120, 170, 2.41e9, 209.5e12, 104.8e12, 1.792e12, 32e9),
    Gpu("H100", 90, 132, 1.83e9, 989e12, 495e12, 3.35e12, 80e9),
    Gpu("H200", 90, 132, 1.83e9, 989e12, 495e12, 4.8e12, 141e9),
    Gpu("B200", 100, 148, 1.85e9, 2250e12, 1125e12, 8.0e12, 180e9),
)


def gpu_called(name: str) -> Gpu | None:
    """The one of the tables that a driver's name means: `NVIDIA H100 80GB HBM3` is an H100, a GH200 is no H200."""
    return next((gpu for gpu in GPUS if re.search(rf"\b{gpu.name}\b(?! Laptop| D)", name)), None)
