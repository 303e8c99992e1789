"""Every operation forward and backward, at every arithmetic and batch: right, complete, the same twice; then its time.

What kernels do not write is NaN. Two runs that differ are a race: no kernel of ours adds in an order of its own, and
torch's are asked not to.
"""

import importlib.util
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bench.gpu.apex import APEX
from bench.gpu.cases import Case, cases
from bench.gpu.findings import Findings
from bench.gpu.judging import DTYPES, arithmetic, poisoned, results, same
from bench.gpu.raw import RAW
from bench.gpu.setting import Setting
from lorbms_fast.config import Precision
from lorbms_fast.engine.first_use.judging import DRAWS, Error, errors_of, judged
from lorbms_fast.errors import said
from lorbms_fast.kernels import Impl

TIMED: Precision = "bfloat16"
FORMS: dict[str, Impl] = {"definition": "reference", "fused torch": "fused", "Triton": "triton"}
AT_LEAST = 3.0
"""Seconds that must be left for one more."""


def run(findings: Findings, setting: Setting) -> None:
    """Check all, smaller batches first; compare with others'; time all."""
    warnings.filterwarnings("ignore", message=".*deterministic.*")
    with setting.kernels():
        for n, case in _until_time_is_up("checked", findings, setting):
            check(case, n, findings, setting)
        compare_with_others(findings, setting)
        for n, case in _until_time_is_up("timed", findings, setting):
            time_forms(case, n, findings, setting)


def _until_time_is_up(what: str, findings: Findings, setting: Setting) -> Iterator[tuple[int, Case]]:
    all_cases = [(n, case) for n in setting.batches for case in cases(setting.model, n, setting.side)]
    for number, (n, case) in enumerate(all_cases):
        if setting.left() < AT_LEAST:
            findings.missed(f"no time left: {number} of {len(all_cases)} operations {what}")
            return
        yield n, case


def check(case: Case, n: int, findings: Findings, setting: Setting) -> None:
    """Write a row for every arithmetic; an operation that fails is a wrong row and no end."""
    try:
        inputs = case.inputs(setting.device)
        exact = results(case, inputs, torch.float64, "reference")
    except torch.OutOfMemoryError:
        findings.missed(f"{case.name}, batch {n}: no memory for the definition in float64")
        return
    for name in setting.precisions:
        cells: dict[str, Any] = {"operation": case.name, "batch": n, "arithmetic": name}
        try:
            cells |= _checked(case, name, inputs, exact, setting)
        except Exception as error:
            findings.row("Errors", said(error), **cells)
        else:
            findings.row("Errors", **cells)


def _checked(
    case: Case, name: Precision, inputs: list[Tensor], exact: list[Tensor], setting: Setting
) -> dict[str, Any]:
    dtype = DTYPES[name]
    repeated = []

    def draws() -> Iterator[list[Error]]:
        for number in range(DRAWS):
            given = case.inputs(setting.device, number) if number else inputs
            right = results(case, given, torch.float64, "reference") if number else exact
            with arithmetic(setting.device, name):
                own = results(case, given, dtype, "reference")
                with poisoned():
                    found, again = (results(case, given, dtype, "triton") for _ in range(2))
            repeated.append(same(found, again))
            yield errors_of(found, own, right)

    errors = judged(draws())
    moved = None if all(repeated) else "two runs differ"
    cells = {"error": errors.found, "of the definition": errors.own, "twice the same": "no" if moved else "yes"}
    return cells | {"wrong": errors.wrong or moved}


def time_forms(case: Case, n: int, findings: Findings, setting: Setting) -> None:
    """Write milliseconds of each form, forward and backward, in a graph."""
    name = setting.precisions[0] if setting.rehearse else TIMED
    inputs = case.inputs(setting.device)
    cells: dict[str, Any] = {}
    for form, impl in FORMS.items():
        work = partial(results, case, inputs, DTYPES[name], impl)
        try:
            with arithmetic(setting.device, name):
                cells[form] = setting.milliseconds(work)
        except Exception as error:  # a definition that asks the host for a number is in no graph
            cells[form] = f"not in a graph ({type(error).__name__})" if form != "Triton" else None
            if form == "Triton":
                findings.row("Milliseconds", said(error), operation=case.name, batch=n)
                return
    if isinstance(cells["definition"], float):
        cells["times"] = cells["definition"] / cells["Triton"]
    table = f"Milliseconds, forward and backward, {name}"
    findings.row(table, operation=case.name, batch=n, **cells)


def compare_with_others(findings: Findings, setting: Setting) -> None:
    """Operations, forward, against a plain CUDA kernel that CuPy compiles and against apex, each if it is here."""
    if setting.rehearse:
        findings.note("neither a CUDA kernel by hand nor apex on a CPU")
        return
    for package, competitors in {"CuPy": RAW, "apex": APEX}.items():
        if importlib.util.find_spec(package.lower()) is None:
            findings.missed(f"{package} beside ours: it is not installed")
            continue
        for name, competitor in competitors.items():
            try:
                theirs, ours = competitor(setting.device)
                apart = (theirs() - ours()).abs().max().item()
                times = setting.milliseconds(theirs), setting.milliseconds(ours)
            except Exception as error:  # it may be installed for another driver: what is of ours is timed all the same
                findings.missed(f"{package} beside ours, {name}: {said(error)}")
                continue
            cells = {"operation": name, f"{package}, ms": times[0], "ours, ms": times[1], "largest difference": apart}
            wrong = None if apart < 1e-4 else "they differ"
            findings.row(f"{package} beside ours, forward, float32", wrong, **cells)
