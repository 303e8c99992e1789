"""Distributed training under torchrun: the group of processes, averaged gradients, synchronized batch norm."""

import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from lorbms_fast.devices import device_named
from lorbms_fast.errors import UserError, one_line, said
from lorbms_fast.kernels import GroupedBatchNorm2d
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.types import Networks

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""Max. wait for a silent process, which may be the first at its sheets, checkpoints and measurements."""
START = timedelta(minutes=5)
"""Max. wait for the other processes at the start, where nobody has anything else to do."""


@dataclass(frozen=True)
class World:
    """The processes of a run, and this one's rank among them."""

    rank: int = 0
    size: int = 1
    store: Store | None = field(default=None, compare=False)
    """Store that all processes see; each notes there how often it has met the others: who is missing can be named."""

    @property
    def first(self) -> bool:
        """Tell whether this process is the one that writes files and messages."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        self.any(False)

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is set in any process; every one must ask."""
        if self.size == 1:
            return flag
        return bool(self.largest(torch.tensor([flag], dtype=torch.uint8)).item())

    def largest(self, numbers: Tensor, patience: timedelta | None = None) -> Tensor:
        """Take each number's maximum over processes; every one must ask, and come in time if there is `patience`.

        On the CPU no GPU has to finish for it.
        """
        with self._meeting():
            if patience is None:
                dist.all_reduce(numbers, dist.ReduceOp.MAX)
            else:
                dist.all_reduce(numbers, dist.ReduceOp.MAX, async_op=True).wait(patience)
        return numbers

    def shared(self, make: Callable[[], T]) -> T:
        """Make something in the first process, any Python object, and hand it to all; every one must ask."""
        if self.size == 1:
            return make()
        held: list[Any] = [make() if self.first else None]
        with self._meeting():
            dist.broadcast_object_list(held, 0, device=torch.device("cpu"))
        return held[0]

    def gathered(self, own: T) -> list[T]:
        """Gather every process's own of something, any Python object, in order of ranks; every one must ask."""
        if self.size == 1:
            return [own]
        held: list[Any] = [None] * self.size
        with self._meeting():
            dist.all_gather_object(held, own)
        return held

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Do as `together`, and name the processes that have met the others less often than this one."""
        if self.store is None:
            with together():
                yield
            return
        met, missing = 0, list[str]()
        try:
            with together():
                met = self.store.add(f"met/{self.rank}", 1)
                yield
        except UserError as error:
            with suppress(RuntimeError):  # the store may have gone with them
                others = (rank for rank in range(self.size) if rank != self.rank)
                missing += [str(rank) for rank in others if self.store.add(f"met/{rank}", 0) < met]
            if not missing:
                raise
            raise UserError(f"{error}; missing: process {', '.join(missing)}") from error


ALONE = World()


@contextmanager
def joined() -> Iterator[World]:
    """Join the group that torchrun started this process for, inside the block; stay alone without torchrun.

    Raises UserError where others are said to be there, and torchrun did not start this one.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        if (named := os.environ.get("WORLD_SIZE") or "1") != "1":
            raise UserError(
                f"WORLD_SIZE is {named}, but torchrun has not started this process (TORCHELASTIC_RUN_ID is not set): "
                "start all processes by torchrun, or unset WORLD_SIZE to train by this one alone"
            )
        yield ALONE
        return
    gpus = torch.cuda.is_available()
    if gpus:
        device_named("cuda")  # this process's own becomes the current one, if there are as many
    with together():
        store, rank, size = _met()
        store.set(f"here/{rank}", "")
        store.wait([f"here/{other}" for other in range(size)], START)
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        world = World(rank, size, store)
        # Where networks are set up wrongly, the first exchange on GPUs hangs: not for as long as a later one may take.
        world.largest(torch.zeros(1, device="cuda" if gpus else "cpu"), START)
        yield world
    except BaseException as error:
        let_go(error)  # of graphs: NCCL does not end while there is one that has work of its own in it
        raise
    finally:
        dist.destroy_process_group()


def let_go(error: BaseException | None) -> None:
    """Clear what functions held that an error, and those before it, came through."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _met() -> tuple[Store, int, int]:
    """Get a store that all processes of this group see and no earlier group wrote to, this one's rank, their number.

    torchrun keeps its store when it starts a failed group again, and the addresses of the dead in it (docs/engine.md).
    """
    store, rank, size = next(rendezvous("env://", timeout=START))
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return store, rank, size
    if size > int(os.environ["LOCAL_WORLD_SIZE"]) and int(os.environ["TORCHELASTIC_MAX_RESTARTS"]) > 0:
        raise UserError(
            "machines that are started again would look for processes that are gone: set "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun on all of them, or leave --max-restarts out"
        )
    return PrefixStore(os.environ["TORCHELASTIC_RESTART_COUNT"], store), rank, size


def restarted() -> bool:
    """Tell whether torchrun started this process in place of one that failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


@contextmanager
def together() -> Iterator[None]:
    """Turn the failure of a collective operation into a UserError of one line: another process is gone."""
    try:
        yield
    except RuntimeError as error:
        rank = os.environ.get("RANK", "?")
        raise UserError(
            f"process {rank} lost another process of the run: look for that one's own message; torchrun --max-restarts "
            f"N would start all again from the last checkpoint ({one_line(str(error).splitlines()[0], 120)})"
        ) from error


class _Gathered(torch.autograd.Function):
    """An all-gather of every process's tensor; gradients go back to the process that each came from."""

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


def synchronize_batch_norm(network: nn.Module, world: World) -> None:
    """Have batch norms normalize by the statistics of all processes' batches; from now on all must run the network.

    The gradients that a process then computes are those of the sum of all processes' losses by way of its own batch:
    averaged over processes, as `average` does, they are the double batch's.
    """
    for layer in network.modules():
        if isinstance(layer, GroupedBatchNorm2d):
            layer.gather = lambda own: _Gathered.apply(own, world)


def on_its_own(network: nn.Module) -> AbstractContextManager[None]:
    """Restrict batch norms to this process's batch inside the block, where no other process runs the network."""
    return _without("gather", [layer for layer in network.modules() if isinstance(layer, GroupedBatchNorm2d)])


@contextmanager
def nothing_exchanged(networks: Networks, optimizers: Optimizers) -> Iterator[None]:
    """Exchange nothing with other processes in iterations inside the block: one that fails holds up no other."""
    with _without("average", vars(optimizers).values()), on_its_own(networks.cls):
        yield


@contextmanager
def _without(name: str, holders: Iterable[Any]) -> Iterator[None]:
    """Let an attribute of some objects be None inside the block."""
    kept = {holder: getattr(holder, name) for holder in holders}
    for holder in kept:
        setattr(holder, name, None)
    try:
        yield
    finally:
        for holder, value in kept.items():
            setattr(holder, name, value)


def exchange_once(optimizers: Optimizers) -> None:
    """Average gradients that nobody has, as a capture only notes what it meets first.

    Raises:
        UserError: this process or another cannot. What the others do then they would wait for: it is the end.
    """
    for name, optimizer in vars(optimizers).items():
        try:
            if optimizer.average is not None:
                optimizer.average(optimizer.param_groups[0]["params"])
        except UserError:
            raise
        except Exception as error:
            rank = os.environ.get("RANK", "?")
            raise UserError(f"process {rank} cannot exchange gradients of the {name} ({said(error)})") from error


def average(parameters: Sequence[Tensor], processes: int) -> None:
    """Replace gradients by their averages over all processes; one that a process lacks counts as zero there."""
    flat = parameters[0].new_empty(sum(parameter.numel() for parameter in parameters))
    parts = flat.split([parameter.numel() for parameter in parameters])
    views = [
        part.as_strided(p.shape, p.stride(), part.storage_offset()) for p, part in zip(parameters, parts, strict=True)
    ]
    torch._foreach_copy_(views, [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters])
    with together():
        dist.all_reduce(flat)
    flat.div_(processes)
    for parameter, view in zip(parameters, views, strict=True):
        parameter.grad = view
