"""GPUs by what NVIDIA's data sheets say of them."""

from dataclasses import dataclass

from lorbms_fast.measurement.work import Work


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
    memory: float
    """Bytes."""

    def roofline(self, work: Work, programs: int, arithmetic: str) -> float:
        """Seconds that a launch takes at least; a grid smaller than the GPU has only its programs' share of it."""
        share = min(1.0, programs / self.multiprocessors)
        peak = self.tf32 if arithmetic == "fp32" else self.half
        # A multiprocessor alone draws about a thirtieth of the bandwidth at most: 4 of 132 do not fill the memory bus.
        return max(work.flops / (peak * share), work.bytes / (self.bandwidth * min(1.0, 4 * share)))


GPUS = (
    Gpu("A100", 80, 108, 312e12, 156e12, 2.04e12, 80e9),
    Gpu("RTX 4090", 89, 128, 165e12, 82.6e12, 1.01e12, 24e9),
    Gpu("H100", 90, 132, 989e12, 495e12, 3.35e12, 80e9),
    Gpu("B200", 100, 148, 2250e12, 1125e12, 8.0e12, 180e9),
)
