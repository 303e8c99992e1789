"""What an iteration will cost on a GPU that is not here: counted launches, operations and bytes against data sheets.

The iteration runs once on the CPU with the launches of our kernels written down instead of made, and with torch's own
operations counted as they go. Nothing here is measured but what says so.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lorbms_fast.config import ModelConfig, Precision
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common.dispatch import INTERPRETED
from lorbms_fast.measurement.gpus import Gpu
from lorbms_fast.measurement.launches import FREE, Launch, recorded
from lorbms_fast.measurement.peak import Alive
from lorbms_fast.measurement.step import step
from lorbms_fast.measurement.work import Work, arithmetic, work

REPLAYED = 1.5e-6
"""Seconds that a kernel takes at least inside a CUDA graph, its successor waiting for it: assumed."""
LAUNCHED = 6e-6
"""Seconds of host time for one launch from PyTorch: assumed."""
OF_PEAK = 0.4
"""Share of a data sheet's rates that kernels reach on average: assumed."""


@dataclass(frozen=True)
class Operation:
    """One launch: what it has to do, and how many programs do it."""

    work: Work
    programs: int
    arithmetic: str


@dataclass(frozen=True)
class Iteration:
    """One training iteration, counted."""

    ours: list[Operation]
    """Launches of our kernels: exact."""
    torchs: list[Operation]
    """torch's own operations, each at least one launch."""
    peak_bytes: int
    """Most bytes of tensors alive at a time, parameters and optimizers included; workspaces of libraries are not."""

    @property
    def operations(self) -> list[Operation]:
        """All of them."""
        return self.ours + self.torchs


@dataclass(frozen=True)
class Prediction:
    """Seconds an iteration, each from the same counts."""

    peak: float
    """Every launch at the data sheet's rates."""
    expected: float
    """Every launch at `OF_PEAK` of them, but `REPLAYED` at least: with CUDA graphs."""
    launched: float
    """As expected, but not below `LAUNCHED` for each launch: without CUDA graphs."""


def predict(iteration: Iteration, gpu: Gpu) -> Prediction:
    """Times on a GPU."""
    peaks = [
        gpu.roofline(operation.work, operation.programs, operation.arithmetic) for operation in iteration.operations
    ]
    expected = sum(max(REPLAYED, seconds / OF_PEAK) for seconds in peaks)
    return Prediction(sum(peaks), expected, max(expected, LAUNCHED * len(peaks)))


def count_iteration(model: ModelConfig, batch_size: int, precision: Precision) -> Iteration:
    """Count one iteration of the fast form with Triton's kernels; takes seconds, on the CPU.

    Args:
        model: sizes of the networks.
        batch_size: reference images.
        precision: of the iteration; tf32 counts as float32.

    Raises:
        UserError: Triton's interpreter is on, so that there are no launches.
    """
    if INTERPRETED:
        raise UserError("TRITON_INTERPRET=1 is set, and interpreted kernels are not launched: unset it")
    with Alive() as alive:
        one_iteration = step("fast", model, batch_size, "float32" if precision == "tf32" else precision)
        with recorded():
            one_iteration()  # the first allocates gradients and moments
        with recorded() as launches, _Counting() as counting:
            one_iteration()
    return Iteration([_of_launch(launch) for launch in launches], counting.found, alive.peak)


def _of_launch(launch: Launch) -> Operation:
    return Operation(work(launch), launch.programs, arithmetic(launch))


class _Counting(TorchDispatchMode):
    """Work of torch's own operations that touch data."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "lorbms_fast" or func.is_view or func.overloadpacket in FREE:
            return func(*args, **(kwargs or {}))
        with FlopCounterMode(display=False) as flops:
            result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        half = any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in tensors)
        # Libraries split products so that they fill a GPU; of others, one program for a few thousand elements.
        programs = 10**6 if flops.get_total_flops() else 1 + max((t.numel() for t in tensors), default=0) // 4096
        self.found.append(Operation(Work(flops.get_total_flops(), size), programs, "bf16" if half else "fp32"))
        return result
