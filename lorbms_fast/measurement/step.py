"""A whole training iteration, ready to be measured."""

from collections.abc import Callable
from functools import partial

import torch

from lorbms_fast.config import Impl, ModelConfig, Precision, TrainConfig
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.engine.iteration import iterate
from lorbms_fast.malloc import retain_freed_memory
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.types import Batch

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

    Args:
        impl: which implementation.
        model: sizes of the networks.
        batch_size: reference images.
        arithmetic: of convolutions and matrix products.
        device: where.
        compiled: torch.compile takes each of the four networks over, in the first call.
    """
    retain_freed_memory()  # as the train command does
    config = TrainConfig(model=model, impl=impl)
    networks = build(model, impl).to(device).train()
    if compiled:
        for network in networks.children():
            network.compile(dynamic=False)
    optimizers = Optimizers.of(networks, config.optim, arithmetic)
    batches = [random_batch(batch_size, model.image_size).to(device)]
    return partial(
        iterate, IMPLS[impl], networks, optimizers, batches, config.loss, config.optim, arithmetic=arithmetic
    )
