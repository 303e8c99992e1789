"""Where to compute."""

import torch


def device_named(name: str) -> torch.device:
    """The device of a name such as `cpu` or `cuda:1`; `auto` is a GPU when there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
