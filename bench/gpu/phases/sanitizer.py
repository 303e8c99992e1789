"""NVIDIA's compute-sanitizer over a small dense block: bad memory accesses, and races in shared memory.

`python -m bench.gpu.phases.sanitizer` is what it looks at: the block there and back, on a CPU in the interpreter.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from bench.gpu.findings import Findings
from bench.gpu.setting import Setting
from lorbms_fast.kernels import DenseBlock

TOOLS = ("memcheck", "racecheck")


def run(findings: Findings, setting: Setting) -> None:
    """Run every tool, each with an equal part of the time."""
    block = [sys.executable, "-m", "bench.gpu.phases.sanitizer"]
    sanitizer = shutil.which("compute-sanitizer")
    if setting.rehearse:
        _note(findings, "none (rehearsal)", block, setting.left())
        return
    if sanitizer is None:
        findings.missed("compute-sanitizer is not installed")
        return
    subprocess.run(block, capture_output=True, timeout=setting.left() / 3)  # compiles
    for number, tool in enumerate(TOOLS):
        command = [sanitizer, "--tool", tool, "--print-limit", "5", *block]
        _note(findings, tool, command, 0.9 * setting.left() / (len(TOOLS) - number))


def _note(findings: Findings, tool: str, command: list[str], seconds: float) -> None:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        findings.missed(f"{tool} said nothing within {seconds:.0f} s")
        return
    said = (ran.stdout + ran.stderr).strip().splitlines() or [""]
    summary = next((line for line in said if "SUMMARY" in line), "")
    numbers = [int(number) for number in re.findall(r"(\d+) (?:errors?|hazards?)", summary)]
    done = ran.returncode == 0 and "done" in said
    wrong = "found something: see said" if any(numbers) else None if summary or done else "did not run to its end"
    findings.row("Small dense block", wrong, tool=tool, said=summary.strip("= ") or said[-1])


def small_block() -> None:
    """Run the block in bfloat16 and float32, with and without a norm."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 8 if device.type == "cuda" else 4
    for dtype in (torch.float32, torch.bfloat16) if device.type == "cuda" else (torch.float32,):
        for activation in ("instance_norm_relu", "relu"):
            block = DenseBlock(8, 2, 4, activation=activation, impl="triton").to(device, dtype)
            x = torch.randn(2, 8, side, side, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
            block(x.requires_grad_()).square().mean().backward()


if __name__ == "__main__":
    with Setting(Path(), not torch.cuda.is_available(), 0).kernels():
        small_block()
    print("done")
