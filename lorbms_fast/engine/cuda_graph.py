"""The iteration on fixed memory, which a GPU can replay as one CUDA graph, without a host that launches kernels.

A graph freezes every number that the host passed while it was recorded. So nothing that changes from one iteration to
the next may be a Python number: the iteration's own number is a tensor that it counts up; indices, masks and learning
rates are functions of that tensor; parameters, moments, step counts and u change in place. The same code runs without
a graph, on a CPU too.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lorbms_fast.config import Precision, TrainConfig
from lorbms_fast.engine.distributed import ALONE, World, exchange_once, nothing_exchanged
from lorbms_fast.engine.draw_queue import DrawQueue, unpacked
from lorbms_fast.engine.fast import Fast
from lorbms_fast.engine.iteration import batches_of, iterate
from lorbms_fast.errors import UserError, said
from lorbms_fast.kernels import lorbms
from lorbms_fast.kernels._common.dispatch import in_force
from lorbms_fast.kernels._common.operation import failing, failures_answered, fall_back
from lorbms_fast.optimizers import Optimizers, undone
from lorbms_fast.progress import tqdm
from lorbms_fast.types import Batch, DrawFn, Networks, StepMetrics

Work = Callable[[], None]


class Recorder(Protocol):
    """A recorder of work on fixed memory, to be replayed; where it raises, streams and memory are as before."""

    def warm_up(self, work: Work) -> None:
        """Run the work once, so that nothing is left to be compiled, tuned or allocated for the first time."""

    def record(self, work: Work) -> Work:
        """Record the work without running it, and return a function that replays it."""


class CudaGraphs:
    """A recorder of a GPU's CUDA graphs on a stream of their own; they share memory, as only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()
            self._pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Work) -> None:
        """Documented at the protocol."""
        try:
            with self._aside():  # a backward must not have begun on the stream that a capture cannot use
                work()
        except BaseException:
            self._release()
            raise

    def record(self, work: Work) -> Work:
        """Documented at the protocol."""
        gc.collect()
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads, such as those that watch over NCCL, may go on with what a capture must not do.
            with self._aside(), torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                work()
        except BaseException:
            del graph
            self._end_allocations()
            raise
        return graph.replay

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Make the device and the graphs' stream the current ones inside the block; restore the former after it.

        `torch.cuda.graph` does not set the stream back where the end of the capture fails.
        """
        with torch.cuda.device(self._device):
            here = torch.cuda.current_stream()
            self._stream.wait_stream(here)
            try:
                with torch.cuda.stream(self._stream):
                    yield
            finally:
                here.wait_stream(self._stream)

    def _end_allocations(self) -> None:
        """Release the memory of a failed capture: where its end failed, torch has left the allocator recording.

        An older torch leaves its generator so, too, which then draws no more: a copy of the state does.
        """
        generator = torch.cuda.default_generators[self._device.index]
        generator.graphsafe_set_state(generator.clone_state())
        try:
            torch._C._cuda_endAllocateToPool(self._device.index, self._pool)
        except RuntimeError:  # it had ended
            pass
        else:
            torch._C._cuda_releasePool(self._device.index, self._pool)
        self._release()

    def _release(self) -> None:
        """Give back the memory that a stream of its own has kept: nobody else can use it."""
        gc.collect()
        torch.cuda.empty_cache()


class Failure(NamedTuple):
    """A failure: what came in between in a process."""

    rank: int
    stage: str
    size: int
    why: str
    operations: list[str]
    """Whose kernel it was; none if it was anything else."""


class CapturedIteration:
    """Training iterations of the fast form, with batches drawn and assembled on the images' device.

    The number of candidates to encode is part of a graph. There is a graph for each of a few numbers, the largest being
    the most that masks can use; an iteration takes the smallest that holds its own. All sizes are warmed up and
    recorded before the first iteration, which leaves no trace. A kernel that fails in either is told of and replaced by
    its operation's fused form; after any other failure all run without graphs. Processes that train together do both at
    once and agree on what failed in any of them.

    `images` are the whole store, uint8 (count, S, S, 3), and `drawing` draws batches, both on the networks' device.
    Without a recorder the work runs as it is.
    """

    def __init__(
        self, networks: Networks, optimizers: Optimizers, images: Tensor, drawing: DrawFn, config: TrainConfig,
        arithmetic: Precision, recorder: Recorder | None, world: World = ALONE,
    ) -> None:  # fmt: skip
        self._world = world
        self._networks, self._optimizers, self._images = networks, optimizers, images
        self._n, self._config, self._arithmetic = config.batch_size, config, arithmetic
        self.recorder = recorder
        self._dtype = next(networks.parameters()).dtype
        self._drawn = DrawQueue(drawing, config.batch_size, batches_of(config), images.device)
        self.number = torch.zeros(1, dtype=torch.int64, device=images.device)
        """Number of the next iteration, as the device counts it."""
        self._expected = 0
        self._numbers = torch.zeros(len(StepMetrics.names()), dtype=torch.float64, device=images.device)
        self._at = ("", 0)
        self._replays: dict[int, Work] = {}
        self._moved: set[int] = set()

    @property
    def graphs(self) -> int:
        """Number of sizes that have been recorded."""
        return len(self._replays)

    @property
    def sizes(self) -> list[int]:
        """Numbers of candidates that graphs are recorded for."""
        return sorted({-(-self._n * quarters // 4) for quarters in (6, 8, 10, 12)})

    def __call__(self, iteration: int, numbers: range) -> StepMetrics:
        """Run the iteration of a number, counted from 0, and return metrics in memory that the next call overwrites.

        `numbers` are its batches'; the next iteration's are expected to follow in the same steps.
        """
        if not self._replays:
            self._prepare()
        used = self._drawn.ready(iteration, numbers)
        if iteration != self._expected:
            self.number.fill_(iteration)
        self._expected = iteration + 1
        self._do(next(size for size in self.sizes if size >= used))
        return StepMetrics.unstacked(self._numbers)

    def rehearse(self, size: int) -> None:
        """Run an iteration with so many candidates, of the first images; it trains: see `undone`."""
        self._drawn.rehearse(size, len(self._images))
        self._work(size)

    def undone(self) -> AbstractContextManager[None]:
        """Put back what iterations inside the block change."""
        return undone(self._networks, self._optimizers, (self.number, self._numbers, self._drawn.slots))

    def _do(self, size: int) -> None:
        if not self._replays:
            self._work(size)
            return
        self._replays[size]()
        if size not in self._moved:
            self._check_that_it_moved(size)

    def _prepare(self) -> None:
        """Record all sizes: where a kernel of ours fails, once more without it; where anything else does, none."""
        while self.recorder is not None and not self._replays:
            with self.undone():
                failures = self._failures_of(self._warm_up)
                if not failures:
                    if self._world.size > 1:  # outside of what is answered: others are in it and wait
                        self.recorder.warm_up(partial(exchange_once, self._optimizers))
                    failures = self._failures_of(self._record)
            if failures:
                self._replays.clear()
                self._answer(failures)

    def _failures_of(self, stage: Callable[[Recorder], None]) -> list[Failure]:
        """Go through a stage with all processes; what came in between, in any of them."""
        failure = None
        assert self.recorder is not None
        try:
            with failures_answered():
                stage(self.recorder)
        except Exception as error:  # whatever it was, there is another way
            failure = Failure(self._world.rank, *self._at, said(error), failing(error))
        return [each for each in self._world.gathered(failure) if each is not None]

    def _warm_up(self, recorder: Recorder) -> None:
        with nothing_exchanged(self._networks, self._optimizers):
            for size in reversed(self.sizes):  # the largest, which takes most memory, first
                self._at = "warmed up", size
                recorder.warm_up(partial(self.rehearse, size))

    def _record(self, recorder: Recorder) -> None:
        for size in reversed(self.sizes):
            self._at = "captured", size
            self._drawn.rehearse(size, len(self._images))
            self._replays[size] = recorder.record(partial(self._work, size))

    def _answer(self, failures: list[Failure]) -> None:
        """Go on without the kernels, if they failed wherever something did, or without graphs; else UserError."""
        of_kernels = all(failure.operations for failure in failures)
        operations = sorted({name for failure in failures for name in failure.operations})
        first = failures[0]
        where = f" by process {first.rank}" if self._world.size > 1 else ""
        failed = f"an iteration of {first.size} candidates cannot be {first.stage}{where} ({first.why})"
        if of_kernels and in_force() == "triton":
            raise UserError(f"--kernels triton: {failed}; train with --kernels auto")
        if of_kernels:
            fall_back(operations)
            instead = f"from now on {', '.join(operations)} in the fused torch form, at a cost that nobody measured"
        else:
            self.recorder = None
            instead = "training goes on without CUDA graphs"
        if self._world.first:
            tqdm.write(f"{failed}: {instead}")

    def _check_that_it_moved(self, size: int) -> None:
        """Raise UserError if a replay did nothing: a graph of another device's stream is silently empty."""
        number = int(self.number.item())
        if number != self._expected:
            raise UserError(
                f"the CUDA graph of {size} candidates does nothing on {self._images.device}: iteration "
                f"{self._expected} still has number {number}; train with --graphs off"
            )
        self._moved.add(size)

    def _work(self, size: int) -> None:
        """Run the whole iteration: from its number to parameters, moments, u and metrics."""
        slots = self._drawn.slots.index_select(0, self.number % len(self._drawn.slots))[0]
        batches = [self._batch(slot, size) for slot in slots]
        loss, optim = self._config.loss, self._config.optim
        self._optimizers.set_rates(optim, self.number[0])
        metrics = iterate(Fast(), self._networks, self._optimizers, batches, loss, optim, self._arithmetic)
        self._numbers.copy_(metrics.stacked())
        self.number.add_(1)

    def _batch(self, slot: Tensor, size: int) -> Batch:
        rows, mask, used = unpacked(slot, self._n, size)
        images = lorbms.assemble_batch(self._images, rows, dtype=self._dtype, channels_last=True)
        return Batch(images[0], images[1:], mask, used)
