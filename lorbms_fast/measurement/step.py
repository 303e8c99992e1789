"""A whole training iteration, ready to be measured."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from lorbms_fast.config import Impl, ModelConfig, Precision, TrainConfig
from lorbms_fast.dataloader import counter_rng
from lorbms_fast.engine.cuda_graph import CapturedIteration, CudaGraphs, Recorder
from lorbms_fast.engine.distributed import ALONE, World
from lorbms_fast.engine.first_use import Found, Tried, choose_forms
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.engine.iteration import iterate
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.types import Batch, BatchIndices, DrawFn, Networks

CPU = torch.device("cpu")


def random_batch(n: int, image_size: int, seed: int = 0) -> Batch:
    """Noise images, and masks that replace one to three quadrants, half of all on average."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n, 3, image_size, image_size)
    images = torch.rand((5, *shape), generator=generator) * 2 - 1
    order = torch.rand((n, 4), generator=generator).argsort(1)
    replaced = 1 + torch.arange(n)[:, None] % 3
    return Batch(images[0], images[1:], order < replaced)


def step(
    impl: Impl,
    model: ModelConfig,
    batch_size: int,
    arithmetic: Precision = "float32",
    device: torch.device = CPU,
    compiled: bool = False,
) -> Callable[[], object]:
    """Build a function that does one iteration (generator twice, classifier, discriminator) on one fixed batch.

    If `compiled`, torch.compile takes the four networks over in the first call, and a line tells of each graph.
    """
    retain_freed_memory()  # as the train command does
    config = TrainConfig(model=model, impl=impl)
    networks = build(model, impl).to(device).train()
    if compiled:
        from lorbms_fast.engine.torch_compile import Graphs  # takes a second to import

        for name, network in networks.named_children():
            network.compile(backend=Graphs(name), dynamic=False)
    optimizers = Optimizers.of(networks, config.optim, arithmetic)
    batches = [random_batch(batch_size, model.image_size).to(device)]
    return partial(
        iterate, IMPLS[impl], networks, optimizers, batches, config.loss, config.optim, arithmetic=arithmetic
    )


IMAGES = 1000
"""Random ones, where a store's would lie."""


def random_draws(n: int, device: torch.device, sizes: Sequence[int]) -> DrawFn:
    """Draw batches of n from `IMAGES` images, the same on every device; `sizes` of candidates, n to 3 n, take turns."""
    samples, quadrants = torch.arange(n, device=device), torch.arange(4 * n, device=device).view(n, 4)
    wanted = torch.tensor(sizes, device=device)

    def draw(numbers: range) -> BatchIndices:
        number = torch.arange(numbers.start, numbers.stop, numbers.step, device=device)[:, None, None]
        each = torch.arange(5 * n, device=device).view(5, n)
        rows = counter_rng.below(IMAGES, counter_rng.key(0, 0), 5 * n * number + each)
        order = counter_rng.bits(counter_rng.key(0, 1), 4 * n * number + quadrants).argsort(-1).argsort(-1)
        size = wanted[number % len(wanted)]
        replaced = size // n + (samples[:, None] < size % n)
        return BatchIndices(rows, order < replaced)

    return draw


class Captured(NamedTuple):
    """An iteration on fixed memory, and what it trains."""

    iteration: CapturedIteration
    networks: Networks
    optimizers: Optimizers

    def state(self) -> list[Tensor]:
        """Everything that an iteration changes."""
        tensors = [*self.networks.state_dict().values(), self.iteration.number, *self.optimizers.tensors()]
        for optimizer in vars(self.optimizers).values():
            if optimizer.scaler.is_enabled() and optimizer.scaler._scale is not None:
                tensors += [optimizer.scaler._scale, optimizer.scaler._growth_tracker]
        return tensors

    def iterate(self, numbers: Iterable[int]) -> None:
        """Do the iterations of these numbers, a batch each."""
        for number in numbers:
            self.iteration(number, range(number, number + 1))


def captured(
    model: ModelConfig,
    batch_size: int,
    arithmetic: Precision,
    device: torch.device,
    recorder: Recorder | None = None,
    sizes: Sequence[int] = (),
    world: World = ALONE,
) -> Captured:
    """Build the fast form's iteration over random images that lie where it is computed.

    Without a recorder the work runs as it is; `sizes` are of candidates, see `random_draws`, by default half of all.
    """
    config = TrainConfig(model=model, batch_size=batch_size)
    networks = build(model, "fast").to(device).train()
    optimizers = Optimizers.of(networks, config.optim, arithmetic)
    generator = torch.Generator().manual_seed(0)
    shape = (IMAGES, model.image_size, model.image_size, 3)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(device)
    draws = random_draws(batch_size, device, sizes or (2 * batch_size,))
    iteration = CapturedIteration(networks, optimizers, images, draws, config, arithmetic, recorder, world)
    return Captured(iteration, networks, optimizers)


def forms_of_an_iteration(
    model: ModelConfig,
    batch_size: int,
    arithmetic: Precision,
    device: torch.device,
    kernels: Tried = "auto",
    retune: bool = False,
) -> Found:
    """Give the operations of an iteration their forms, as `train` does on first use.

    The device is a GPU, with Triton; `triton` takes no other form, and `retune` tries again what was tried before.
    """
    fixed = captured(model, batch_size, arithmetic, device).iteration
    with fixed.undone():
        return choose_forms([partial(fixed.rehearse, size) for size in fixed.sizes], device, kernels, retune)


def captured_step(
    model: ModelConfig, batch_size: int, arithmetic: Precision, device: torch.device
) -> Callable[[], object]:
    """Build a function that does one iteration of the fast form as a CUDA graph, which the first call records."""
    found, numbers = captured(model, batch_size, arithmetic, device, CudaGraphs(device)), count()
    return lambda: found.iterate([next(numbers)])
