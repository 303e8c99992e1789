"""Models that nobody here wrote, as they were made and accelerated: gradients that agree, then time and memory."""

import warnings
from itertools import product
from typing import Any

import torch

from bench.gpu.findings import Findings
from bench.gpu.judging import arithmetic
from bench.gpu.setting import Setting
from bench.others.agreement import errors
from bench.others.measuring import measure
from bench.others.models import CASES, DTYPES, LAYOUTS
from lorbms_fast.errors import said
from lorbms_fast.kernels import Impl, use_impl

ROUNDS = 9
REHEARSED = [("bfloat16", layout, "CycleGAN generator") for layout in LAYOUTS]
TIMES, KINKS = 4, 0.02
"""How many times the error of the model as it was made is allowed, and what more: where a value is within rounding of
zero, ReLU's slope is 0 one way and 1 another, by which densenet121's float32 gradients differ by a hundredth."""
AT_LEAST = 4.0
"""Seconds that must be left for one more."""


def run(findings: Findings, setting: Setting) -> None:
    """Go through all models of `bench.others` whose packages are here, the quickest arithmetic first."""
    warnings.filterwarnings("ignore", category=UserWarning)
    wanted = REHEARSED if setting.rehearse else list(product(reversed(DTYPES), reversed(LAYOUTS), CASES))
    missing: dict[str, str] = {}
    for number, (dtype, layout, name) in enumerate(wanted):
        if setting.left() < AT_LEAST:
            findings.missed(f"no time left: {number} of {len(wanted)} models, layouts and arithmetics compared")
            break
        try:
            _compare(name, layout, dtype, findings, setting)
        except (ImportError, torch.OutOfMemoryError) as error:
            missing[name] = said(error)
        except Exception as error:
            findings.row("Training steps", said(error), model=name, maps=layout, autocast=dtype)
    for name, why in missing.items():
        findings.missed(f"{name}: {why}")


def _compare(name: str, layout: str, dtype: str, findings: Findings, setting: Setting) -> None:
    impl: Impl = "triton" if setting.rehearse else "auto"  # which takes torch's forms on a CPU
    with setting.kernels(), use_impl(impl), arithmetic(setting.device, "float32"):
        found, own = errors(name, layout, dtype, setting.device)
    wrong = None if found <= TIMES * own + KINKS else f"gradients are {found:.1e} off, as it was made {own:.1e}"
    row: dict[str, Any] = {"model": name, "maps": layout, "autocast": dtype}
    findings.row("Gradients, off by", wrong, **row, **{"as it was made": own, "accelerated": found})
    if not setting.rehearse:
        findings.row("Training steps", **measure(name, layout, dtype, setting.device, ROUNDS).cells)
