"""First use, as training goes through it: every operation compiled, checked, timed, and given a form.

A rehearsal goes through operations that the interpreter is quick with; its times mean nothing.
"""

from collections.abc import Callable
from functools import partial

import torch

from bench.gpu.cases import cases
from bench.gpu.findings import Findings
from bench.gpu.judging import results
from bench.gpu.setting import Setting
from lorbms_fast.engine.first_use import choose_forms
from lorbms_fast.measurement.step import captured

QUICK = ("instance norm", "pooled", "resize", "mixing", "classification", "step of Adam")


def run(findings: Findings, setting: Setting) -> None:
    """Choose, and write a row for every operation."""
    with setting.kernels():
        found = choose_forms(_works(setting), setting.device, retune=True, path=setting.out / "kernels.json")
    for row in found.rows:
        findings.row("Forms", "; ".join(row.messages()) or None, **row.cells)


def _works(setting: Setting) -> list[Callable[[], object]]:
    if not setting.rehearse:
        fixed = captured(setting.model, setting.batch, "bfloat16", setting.device).iteration
        return [partial(fixed.rehearse, size) for size in fixed.sizes]
    quick = [case for case in cases(setting.model, setting.batch, setting.side) if case.name.startswith(QUICK)]
    return [partial(results, case, case.inputs(setting.device), torch.float32, None) for case in quick]
