"""Many processes on one run, started by torchrun: who they are, and the average of their gradients."""

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from lorbms_fast.errors import UserError
from lorbms_fast.reference.layers import BatchNorm

BUCKET = 25 * 2**20
"""Bytes of gradients that travel together, as in DistributedDataParallel."""
PATIENCE = timedelta(minutes=30)
"""How long a process waits for a silent one, which may be the first at its sheets, checkpoints and measurements."""
START = timedelta(minutes=5)
"""How long processes wait for each other when they begin."""


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this one is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """This process is the one that writes and talks."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        self.any(False)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; every one must ask."""
        if self.size == 1:
            return flag
        return bool(self.largest(torch.tensor([flag], dtype=torch.uint8)).item())

    def largest(self, numbers: Tensor) -> Tensor:
        """The largest of each number in any process; every one must ask. On the CPU: no GPU has to finish for it."""
        with together():
            dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return numbers


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """Inside the block, this process belongs to the group that torchrun started it for; alone without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ALONE
        return
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    with together():
        store, rank, size = next(rendezvous("env://", timeout=START))
        of_this_group = PrefixStore(agreed_name(store, rank, size), store)
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        dist.init_process_group(backend, store=of_this_group, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def agreed_name(store: Store, rank: int, size: int, patience: timedelta = START) -> str:
    """A name for this group of processes, the same in all of them and never used before.

    torchrun keeps its store when it starts a failed group again, and with it the addresses of the dead; who looks
    before the new ones are there connects to nobody, or to somebody else. Counts of restarts are each machine's own. So
    the first process invents a name, all others answer to it with names of their own, and it lists whom it heard.

    Args:
        store: that all processes see, with what earlier groups left there.
        rank: of this process.
        size: how many there are.
        patience: how long to wait for the others.

    Raises:
        UserError: the others did not come.
    """
    deadline, mine = time.monotonic() + patience.total_seconds(), uuid.uuid4().hex
    if rank == 0:
        store.set("group", mine)
    while time.monotonic() < deadline:
        if name := _called(store, mine, size) if rank == 0 else _answered(store, mine, rank):
            return name
        time.sleep(0.02)
    missing = [str(r) for r in range(1, size) if not _look_up(store, f"group/{mine}/{r}")] if rank == 0 else ["0"]
    raise UserError(
        f"process {rank} waited {patience.total_seconds():g} s for process {', '.join(missing)} of {size} to start: "
        "look for that one's own message"
    )


def _called(store: Store, group: str, size: int) -> str:
    """The group's name once all others have answered to it; then they are listed, for them to see."""
    answers = [_look_up(store, f"group/{group}/{rank}") for rank in range(1, size)]
    if not all(answers):
        return ""
    store.set(f"group/{group}", json.dumps(answers))
    return group


def _answered(store: Store, mine: str, rank: int) -> str:
    """The group's name once its first process has heard this one: a dead one's group lists others, or nobody."""
    if not (group := _look_up(store, "group")):
        return ""
    store.set(f"group/{group}/{rank}", mine)
    listed = _look_up(store, f"group/{group}")
    return group if listed and mine in json.loads(listed) else ""


def _look_up(store: Store, name: str) -> str:
    """What the store has under a name now, or nothing."""
    found: str = store.get(name).decode() if store.check([name]) else ""
    return found


def restarted() -> bool:
    """torchrun started this process in place of one that failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


@contextmanager
def together() -> Iterator[None]:
    """Turn the failure of a collective operation into one line.

    Raises:
        UserError: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:
        rank = os.environ.get("RANK", "?")
        raise UserError(
            f"process {rank} lost another process of the run ({str(error).splitlines()[0]}): look for that one's own "
            "message; torchrun --max-restarts N would start all again from the last checkpoint"
        ) from error


class _Gathered(torch.autograd.Function):
    """Every process's tensor in every process; gradients go back to the process that each came from."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, world: World) -> Tensor:
        ctx.rank = world.rank
        everyones = own.new_zeros((world.size, *own.shape))
        everyones[world.rank] = own
        with together():
            dist.all_reduce(everyones)
        return everyones

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        of_everyone = gradients[0].clone(memory_format=torch.contiguous_format)
        with together():
            dist.all_reduce(of_everyone)
        return of_everyone[ctx.rank], None


def synchronise_batch_norm(network: nn.Module, world: World) -> None:
    """Let batch norms normalise by the statistics of all processes' batches; from now on all must run the network.

    The gradients that a process then computes are those of the sum of all processes' losses by way of its own batch:
    averaged over processes, as `Averaging` does, they are the double batch's.
    """
    for layer in network.modules():
        if isinstance(layer, BatchNorm):
            layer.gather = lambda own: _Gathered.apply(own, world)


@contextmanager
def on_its_own(network: nn.Module) -> Iterator[None]:
    """Inside the block batch norms see this process's batch only, as no other process runs the network."""
    layers = [layer for layer in network.modules() if isinstance(layer, BatchNorm)]
    kept = [layer.gather for layer in layers]
    for layer in layers:
        layer.gather = None
    try:
        yield
    finally:
        for layer, gather in zip(layers, kept, strict=True):
            layer.gather = gather


class Averaging:
    """Replaces gradients by their averages over all processes, while the backward still computes others.

    Buckets travel in one order in every process, each when all its gradients and all buckets before it are ready.

    Args:
        parameters: of one optimizer; the same, with the same values, in every process.
        processes: how many there are.
        bucket: bytes that travel together.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], processes: int, bucket: int = BUCKET) -> None:
        self._processes = processes
        self._buckets: list[list[nn.Parameter]] = [[]]
        size = 0
        for parameter in reversed(list(parameters)):  # the backward reaches the last layers first
            if size >= bucket:
                self._buckets.append([])
                size = 0
            self._buckets[-1].append(parameter)
            size += parameter.numel() * parameter.element_size()
        for i, parameters_of_one in enumerate(self._buckets):
            for parameter in parameters_of_one:
                parameter.register_post_accumulate_grad_hook(partial(self._arrived, i))
        self.start()

    def finish(self) -> None:
        """Let every gradient be the average; one that a process lacks counts as zero there."""
        while len(self._sent) < len(self._buckets):
            self._send()
        for flat, work in self._sent:
            with together():
                work.wait()
            flat.div_(self._processes)
        self.start()

    def start(self) -> None:
        """Wait for the gradients of a new backward."""
        self._missing = [len(bucket) for bucket in self._buckets]
        self._sent: list[tuple[Tensor, dist.Work]] = []

    def _arrived(self, i: int, parameter: Tensor) -> None:
        self._missing[i] -= 1
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._send()

    def _send(self) -> None:
        """Copy the next bucket's gradients into one vector, of which they are parts from then on, and add it up."""
        bucket = self._buckets[len(self._sent)]
        flat = bucket[0].new_empty(sum(parameter.numel() for parameter in bucket))
        parts = flat.split([parameter.numel() for parameter in bucket])
        views = [
            part.as_strided(p.shape, p.stride(), part.storage_offset()) for p, part in zip(bucket, parts, strict=True)
        ]
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        torch._foreach_copy_(views, grads)
        for parameter, view in zip(bucket, views, strict=True):
            parameter.grad = view
        with together():
            work = dist.all_reduce(flat, async_op=True)
        assert work is not None
        self._sent.append((flat, work))
