"""Where to compute."""

import os

import torch


def device_named(name: str) -> torch.device:
    """The device of a name such as `cpu` or `cuda:1`; `auto` is a GPU when there is one, else the CPU.

    Where torchrun started one process for each GPU, `auto` and `cuda` mean this process's own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    return torch.device(name)
