"""Devices by their names."""

import os
import re

import torch

from lorbms_fast.counted import counted
from lorbms_fast.errors import UserError


def device_named(name: str) -> torch.device:
    """Find the device of a name such as `cpu` or `cuda:1`; `auto` is a GPU when there is one, else the CPU.

    Where torchrun started one process for each GPU, `auto` and `cuda` mean this process's own. A GPU becomes the
    process's current one: kernels are launched, and streams and graphs made, on the current device. Raises UserError if
    there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    own = name == "cuda" and "LOCAL_RANK" in os.environ
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    if not re.fullmatch(r"cpu|cuda:\d\d?", name):
        raise UserError(f"--device {name}: write cpu, cuda, cuda:1 or auto")
    device = torch.device(name)
    if device.type == "cuda":
        if device.index >= torch.cuda.device_count():
            there = torch.cuda.device_count()
            remedy = f"choose cuda:0 to cuda:{there - 1}" if there else "use --device cpu"
            if there and own:
                remedy = f"start {counted(there, 'process', 'processes')} at most (torchrun --nproc-per-node {there})"
            raise UserError(f"--device {name}: torch sees {there or 'no'} GPUs here: {remedy}")
        torch.cuda.set_device(device)
    return device
