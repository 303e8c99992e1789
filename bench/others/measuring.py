"""Time and memory of a model's step, forward and backward, as it was made and accelerated, in turns."""

import copy
import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from bench.others.models import CASES, DTYPES, arranged, loss
from lorbms_fast.kernels import accelerate
from lorbms_fast.measurement.pairs import Pair, seconds
from lorbms_fast.measurement.peak import Alive

IMAGES_ON_GPU = 16
"""A GPU gets so many times the images: with a CPU's few it would wait for Python, before and after."""


@dataclass(frozen=True)
class Row:
    """Measurements of a model in one layout and dtype."""

    name: str
    layout: str
    dtype: str
    swapped: int
    times: Pair
    memory: Pair
    """Bytes, before and after."""

    @property
    def cells(self) -> dict[str, Any]:
        """The row, by the names of its columns."""
        before, after = (1e-6 * bytes_ for bytes_ in (self.memory.a[0], self.memory.b[0]))
        return {
            "model": self.name,
            "maps": self.layout,
            "autocast": self.dtype,
            "swapped": self.swapped,
            "before, ms": 1e3 * median(self.times.a),
            "after, ms": 1e3 * median(self.times.b),
            "times faster": self.times.ratio,
            "before, MB": before,
            "after, MB": after,
            "times less": before / after,
        }


def measure(name: str, layout: str, dtype: str, device: torch.device, rounds: int) -> Row:
    """Measure one row; ImportError if its package is not there."""
    torch.manual_seed(0)
    case = CASES[name]
    images, *shape = case.measured_shape
    x = torch.randn(images if device.type == "cpu" else IMAGES_ON_GPU * images, *shape, device=device)
    model, x = arranged(case.measured().to(device), x, layout)
    faster = copy.deepcopy(model)
    report = accelerate(faster, save_memory=True)
    steps = [_step(m, x, DTYPES[dtype]) for m in (model, faster)]
    memory = [_peak(step, m, device) for step, m in zip(steps, (model, faster), strict=True)]
    times = [[seconds(step, device) for step in steps] for _ in range(rounds + 1)][1:]
    before, after = map(list, zip(*times, strict=True))
    return Row(name, layout, dtype, len(report.swapped), Pair(before, after), Pair(memory[:1], memory[1:]))


def _step(model: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad(set_to_none=False)  # there before, and not of what a step needs
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            value = loss(model, x)
        value.backward()

    return step


def _peak(step: Callable[[], None], model: nn.Module, device: torch.device) -> float:
    step()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return float(torch.cuda.max_memory_allocated(device) - before)
    own = [tensor for p in model.parameters() for tensor in (p, p.grad) if tensor is not None]
    with Alive([*own, *model.buffers()]) as alive:
        step()
    return float(alive.peak)
