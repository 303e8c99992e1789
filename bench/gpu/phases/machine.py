"""Versions, clocks, and the two ceilings that nothing can be faster than: copying, and multiplying in bfloat16."""

import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

from bench.gpu.findings import Findings
from bench.gpu.setting import Setting
from lorbms_fast.measurement.machine import machine

PACKAGES = ("torch", "triton", "numpy", "cupy-cuda13x", "pydantic", "lorbms-fast")
QUERY = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,temperature.gpu,memory.total"


def run(findings: Findings, setting: Setting) -> None:
    findings.note(machine())
    for name in PACKAGES:
        findings.row("Versions", package=name, version=_version(name))
    findings.row("Versions", package="Python", version=platform.python_version())
    findings.row("Versions", package="CUDA of torch", version=torch.version.cuda)
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]
        told = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        findings.note(f"nvidia-smi ({QUERY}): {told}")
    side, size = (64, 1 << 10) if setting.rehearse else (8192, 1 << 30)
    device, dtype = setting.device, torch.bfloat16
    source, target = (torch.empty(size, dtype=torch.uint8, device=device).random_() for _ in range(2))
    a, b, c = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    copying, product = (setting.milliseconds(work) for work in (lambda: target.copy_(source), lambda: c.copy_(a @ b)))
    findings.row("Ceilings", what="copy, read and written, TB/s", measured=2 * size / copying / 1e9)
    findings.row("Ceilings", what=f"bfloat16 product of {side}, TFLOP/s", measured=2 * side**3 / product / 1e9)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
