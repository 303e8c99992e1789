"""Costs of an iteration on a GPU that is not here: counted launches, operations and bytes against data sheets.

The iteration runs once on the CPU with the launches of our kernels written down instead of made, and with torch's own
operations counted as they go. Nothing here is measured but what says so.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lorbms_fast.config import ModelConfig, Precision
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common.dispatch import INTERPRETED
from lorbms_fast.measurement.branches import Branch, Branches
from lorbms_fast.measurement.chains import Chain, chain, shared_bytes
from lorbms_fast.measurement.gpus import MULTIPROCESSORS, Gpu
from lorbms_fast.measurement.host import LAUNCHED, Host
from lorbms_fast.measurement.launches import FREE, Launch, recorded
from lorbms_fast.measurement.peak import Alive
from lorbms_fast.measurement.step import step
from lorbms_fast.measurement.work import Work, arithmetic, work

REPLAYED = (1.0e-6, 2.0e-6)
"""Seconds that a kernel takes at least inside a CUDA graph, its successor waiting for it: assumed."""
OF_PEAK = (0.8, 0.4)
"""Share of a data sheet's rates that kernels reach: assumed, at best and at worst."""
REGISTERS = 128
"""Registers of a thread, where a launch does not bound them: what most kernels take (bench/STATIC.md)."""


@dataclass(frozen=True)
class Range:
    """Seconds, at least and at most."""

    least: float
    most: float

    def __add__(self, other: "Range") -> "Range":
        return Range(self.least + other.least, self.most + other.most)

    @property
    def middle(self) -> float:
        """The geometric mean of both, for where one number must do."""
        return math.sqrt(self.least * self.most)


@dataclass(frozen=True)
class Operation:
    """One launch: what it has to do, how many programs do it, and how large one is."""

    name: str
    work: Work
    programs: int
    arithmetic: str
    chain: Chain = field(default_factory=Chain)
    warps: int = 4
    registers: int = REGISTERS
    shared: int = 0
    """Bytes of a program."""
    kernel: str = ""
    """Name of the kernel of ours."""
    branch: Branch | None = None

    def seconds(self, gpu: Gpu) -> Range:
        """The longest of arithmetic, memory, the chains of its programs as far as there is room, and a graph's step."""
        resident = self._resident(gpu)
        bound = gpu.roofline(self.work, self.programs, self.arithmetic)
        least, most = (
            max(step, bound / share, cycles / gpu.clock)
            for step, share, cycles in zip(
                REPLAYED, OF_PEAK, self.chain.cycles(gpu.multiprocessors, resident), strict=True
            )
        )
        return Range(least, most)

    def occupied(self, gpu: Gpu) -> Range:
        """Seconds of the whole GPU that it takes from others: at most, its programs share no multiprocessor."""
        own, programs = self.seconds(gpu), self.programs / gpu.multiprocessors
        return Range(own.least * min(1, programs / self._resident(gpu)), own.most * min(1, programs))

    def _resident(self, gpu: Gpu) -> int:
        return max(1, MULTIPROCESSORS[gpu.architecture].resident(self.warps, self.registers, self.shared))


@dataclass(frozen=True)
class Iteration:
    """One training iteration, counted."""

    ours: list[Operation]
    """Launches of our kernels: exact."""
    torchs: list[Operation]
    """torch's own operations, each at least one launch."""
    calls: int
    """Custom operators called, each a launch of ours or a few."""
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
    captured: Range
    """With CUDA graphs."""
    launched: Range
    """Without: never less than the host needs."""


def predict(iteration: Iteration, gpu: Gpu, host: Host) -> Prediction:
    """Times on a GPU, beside a host whose operators take so long."""
    peak = sum(gpu.roofline(each.work, each.programs, each.arithmetic) for each in iteration.operations)
    captured = replayed(iteration.operations, gpu)
    of_host = iteration.calls * host.custom + len(iteration.torchs) * host.plain
    least, most = (of_host + len(iteration.ours) * launched for launched in LAUNCHED)
    return Prediction(peak, captured, Range(max(captured.least, least), max(captured.most, most)))


def replayed(operations: Sequence[Operation], gpu: Gpu) -> Range:
    """Time of a graph: of branches side by side, the longest of either, the room and the bytes that both take."""
    total, forks = Range(0, 0), defaultdict[int, list[Operation]](list)
    for each in operations:
        if each.branch is None:
            total += each.seconds(gpu)
        else:
            forks[each.branch.fork].append(each)
    for both in forks.values():
        here, aside = (
            sum((each.seconds(gpu) for each in both if each.branch and each.branch.aside == beside), Range(0, 0))
            for beside in (False, True)
        )
        room = sum((each.occupied(gpu) for each in both), Range(0, 0))
        least, most = (sum(each.work.bytes for each in both) / gpu.bandwidth / share for share in OF_PEAK)
        total += Range(max(here.least, aside.least, room.least, least), max(here.most, aside.most, room.most, most))
    return total


def count_iteration(model: ModelConfig, batch_size: int, precision: Precision) -> Iteration:
    """Count an iteration with Triton's kernels, tf32 as float32, by the CPU; UserError under Triton's interpreter."""
    if INTERPRETED:
        raise UserError("TRITON_INTERPRET is set, and interpreted kernels are not launched: unset it")
    branches = Branches()
    with Alive() as alive:
        one_iteration = step("fast", model, batch_size, "float32" if precision == "tf32" else precision)
        with recorded():
            one_iteration()  # the first allocates gradients and moments
        with branches.told_apart(), recorded(branches) as launches, _Counting(branches) as counting:
            one_iteration()
    return Iteration([_of_launch(launch) for launch in launches], counting.found, counting.calls, alive.peak)


def _of_launch(launch: Launch) -> Operation:
    found = chain(launch)
    return Operation(
        f"{launch.name} {launch.shape}", work(launch), launch.programs, arithmetic(launch), found,
        launch.options.get("num_warps", 4), launch.options.get("maxnreg", REGISTERS), shared_bytes(found),
        launch.kernel.__name__, launch.branch,
    )  # fmt: skip


class _Counting(TorchDispatchMode):
    """Work of torch's own operations that touch data."""

    def __init__(self, branch: Callable[[], Branch | None] = lambda: None) -> None:
        super().__init__()
        self.found: list[Operation] = []
        self._branch = branch
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func.namespace == "lorbms_fast"
        if func.namespace == "lorbms_fast" or func.is_view or func.overloadpacket in FREE:
            return func(*args, **(kwargs or {}))
        with FlopCounterMode(display=False) as flops:
            result = func(*args, **(kwargs or {}))
        written = [leaf for leaf in tree_leaves(_written(func, args, kwargs or {})) if isinstance(leaf, Tensor)]
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not written:
            tensors += [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        elif func.overloadpacket not in OVERWRITING:  # in place: what is written was read as well
            tensors += written
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        half = any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in tensors)
        # Libraries split products so that they fill a GPU; of others, one program for a few thousand elements.
        programs = 10**6 if flops.get_total_flops() else 1 + sum(tensor.numel() for tensor in tensors) // 8192
        cost = Work(flops.get_total_flops(), size)
        name, dtype = f"torch: {func.overloadpacket}", "bf16" if half else "fp32"
        self.found.append(Operation(name, cost, programs, dtype, branch=self._branch()))
        return result


OVERWRITING = {torch.ops.aten.copy_, torch.ops.aten._foreach_copy_, torch.ops.aten.fill_, torch.ops.aten.zero_}
"""Operations that do not look at what they write over."""


def _written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """List the arguments that an operation changes in place, whatever it returns: the fused Adam returns nothing."""
    arguments = func._schema.arguments
    given = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
    changed = [argument.name for argument in arguments if argument.alias_info and argument.alias_info.is_write]
    # Adam's kernel writes gradients back only where it has unscaled them.
    return [given.get(name) for name in changed if name != "grads" or given.get("grad_scale") is not None]
