"""Milliseconds of an iteration: the reference, and the fast form with and without a graph, in turns; then compiled."""

from typing import Any

from bench.gpu.findings import Findings
from bench.gpu.setting import Setting
from lorbms_fast.config import Precision
from lorbms_fast.errors import said
from lorbms_fast.measurement.apart import compare_steps

ROUNDS = {12: 10, 64: 4, 128: 3}
"""Timed rounds of five iterations, by batch."""
COMPILING = 60.0
"""Seconds that must be left for torch.compile to take the reference over."""


def run(findings: Findings, setting: Setting) -> None:
    """Compare at each batch, and once more in float32 without TF32; last, with the reference compiled."""
    if setting.rehearse:
        _compare(findings, setting, setting.batch, 1, "float32", compiled=False)
        return
    for batch, rounds in ROUNDS.items():
        _compare(findings, setting, batch, rounds, "bfloat16", compiled=False)
    _compare(findings, setting, 12, 3, "tf32", compiled=False)
    if setting.left() < COMPILING:
        findings.missed(f"the reference under torch.compile: {setting.left():.0f} s were left, of {COMPILING:.0f}")
    else:
        _compare(findings, setting, 12, 4, "bfloat16", compiled=True)


def _compare(
    findings: Findings, setting: Setting, batch: int, rounds: int, precision: Precision, compiled: bool
) -> None:
    cells: dict[str, Any] = {"batch": batch, "arithmetic": precision}
    graphs = not setting.rehearse
    try:
        found = compare_steps(setting.model, batch, rounds, precision, compiled, setting.device, graphs)
    except Exception as error:
        findings.row("Milliseconds", said(error), **cells)
        return
    for form in ("reference", "compiled_reference", "fast", "captured"):
        if form in found:
            cells[f"{form.replace('_', ' ')}, ms"] = 1e3 * found[form]["seconds"]
            cells[f"{form.replace('_', ' ')}, GB"] = found[form]["peak_memory_gb"]
            if "launches" in found[form]:
                cells[f"{form.replace('_', ' ')}, kernels"] = found[form]["launches"]
    findings.row("Milliseconds", **cells, **{"times faster": found["ratio"]})
