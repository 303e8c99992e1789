"""The machine that a number was measured on."""

import os
import platform
from pathlib import Path

import torch


def machine() -> str:
    """Processor, usable cores, GPU if any, and the versions of Python and torch."""
    told = cpuinfo.read_text().splitlines() if (cpuinfo := Path("/proc/cpuinfo")).exists() else []
    found = [line.partition(":")[2].strip() for line in told if line.startswith("model name")]
    processor = found[0] if found else platform.processor() or platform.machine()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor}, {cores} cores{gpu}, Python {platform.python_version()}, torch {torch.__version__}"
