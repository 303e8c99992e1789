"""The arithmetic of convolutions and matrix products.

Parameters, statistics, losses and optimizers stay float32 in all of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch

from lorbms_fast.config import Precision
from lorbms_fast.progress import tqdm

_HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_CPU = Path("/proc/cpuinfo")
_MULTIPLY_BFLOAT16 = {"amx_bf16", "avx512_bf16", "bf16"}
"""Flags of processors with instructions for it: Intel's and AMD's, and ARM's."""


def chosen_precision(wish: Precision | Literal["auto"], device: torch.device) -> Precision:
    """Resolve a precision setting for a device: `auto` is bfloat16 on CUDA, float16 before Ampere, float32 on a CPU.

    GPUs before Ampere multiply only float16. Bfloat16 on a device without instructions for it is
    slower or refused: a line says so.
    """
    multiplied = True
    if device.type == "cuda" and wish in ("auto", "bfloat16"):
        multiplied = torch.cuda.get_device_capability(device) >= (8, 0)
    if wish == "auto":
        return "float32" if device.type == "cpu" else "bfloat16" if multiplied else "float16"
    if not multiplied:
        tqdm.write("--precision bfloat16: this GPU has no instructions for it; use --precision float16")
    if wish == "bfloat16" and device.type == "cpu" and not cpu_multiplies_bfloat16():
        tqdm.write(
            "--precision bfloat16: this CPU has no instructions for it (AMX, AVX512_BF16) and multiplies it slower "
            "than float32; use --precision float32"
        )
    return wish


def cpu_multiplies_bfloat16() -> bool:
    """Tell whether this CPU has instructions that multiply bfloat16; where nobody can tell, assume that it has."""
    if not _CPU.exists():
        return True
    listed = [line for line in _CPU.read_text(errors="replace").splitlines() if line.startswith(("flags", "Features"))]
    return not listed or bool(_MULTIPLY_BFLOAT16 & set(listed[0].split()))


@contextmanager
def precision(device: torch.device, arithmetic: Precision) -> Iterator[None]:
    """Compute convolutions and matrix products inside the block in the given arithmetic.

    Autocast's cache of converted weights is off: the block spans several updates, and the cache would hand out weights
    of before the first. What autocast leaves in float32 may use TF32 unless float32 itself is asked for.
    """
    half = _HALF.get(arithmetic)
    with (
        _tf32(arithmetic != "float32"),
        torch.autocast(device.type, half or torch.bfloat16, enabled=half is not None, cache_enabled=False),
    ):
        yield


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TensorFloat-32 in products of float32 inside the block; CPUs do not care.

    torch has older switches and newer ones, and cannot read the older where the newer say otherwise: inside the block
    both say the same. One that had followed `torch.backends.fp32_precision` says by itself afterwards what that said.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    newer: list[Any] = [matmul, cudnn.conv, cudnn.rnn]  # type: ignore[attr-defined]
    before, medium = [switch.fp32_precision for switch in newer], False
    with suppress(RuntimeError):  # they say otherwise
        medium = torch.get_float32_matmul_precision() == "medium"
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    for switch in newer:
        switch.fp32_precision = "tf32" if allowed else "ieee"
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before[0] == "tf32", before[1] == "tf32"
        if medium:
            torch.set_float32_matmul_precision("medium")
        for switch, value in zip(newer, before, strict=True):
            switch.fp32_precision = value
