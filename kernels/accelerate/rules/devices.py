"""Knowledge of what is faster where."""

from itertools import chain

import torch
from torch import nn

from lorbms_fast.kernels._common.dispatch import kernels_run_on
from lorbms_fast.kernels._common.winograd import cpp as winograd
from lorbms_fast.kernels.instance_norm import cpp


def device_of(model: nn.Module) -> torch.device:
    """Device of a model's parameters, or buffers; the CPU if it has none."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


def no_quick_norm(model: nn.Module) -> str | None:
    """Why an instance norm of ours would not be known to be faster; None if it is."""
    device = device_of(model)
    if device.type == "cpu":
        quick = cpp.take(torch.ones(1, 1, 2, 2, device="cpu"))
        return None if quick else "no C++ compiler, and without one torch's own is faster"
    if device.type == "cuda":
        return None if kernels_run_on(device) else "no Triton, or a GPU before Ampere, where it has no tensor cores"
    return f"no kernels for {device.type}"


def not_the_cpu(model: nn.Module) -> str | None:
    """Why a layer that was measured on CPUs alone stays; None on one."""
    device = device_of(model)
    return None if device.type == "cpu" else f"known to be faster on CPUs alone, the model is on {device.type}"


def no_loops() -> str | None:
    """Why a CPU does not run Winograd's convolution; None if it does."""
    return None if winograd.runs() else "no C++ compiler, or a processor without AVX2"
