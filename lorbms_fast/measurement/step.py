"""A whole training iteration, ready to be measured."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import Any

import torch

from lorbms_fast.config import Impl, ModelConfig, TrainConfig
from lorbms_fast.dataloader.batches import Batch
from lorbms_fast.engine.forms import FORMS
from lorbms_fast.engine.optimizers import Optimizers
from lorbms_fast.engine.precision import Precision, precision
from lorbms_fast.measurement.counts import count
from lorbms_fast.measurement.pairs import paired
from lorbms_fast.measurement.proc import bytes_told
from lorbms_fast.models import build
from lorbms_fast.pages import keep_pages

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
) -> Callable[[], object]:
    """A function that does one iteration (generator twice, classifier, discriminator) on one fixed batch."""
    keep_pages()  # as the train command does
    config = TrainConfig(model=model, impl=impl)
    networks = build(model, impl).to(device).train()
    optimizers = Optimizers.of(networks, config.optim, arithmetic)
    batches = [random_batch(batch_size, model.image_size).to(device)] * 4
    form = FORMS[impl]

    def one_iteration() -> object:
        with precision(device, arithmetic):
            report = form.iterate(networks, optimizers, batches, config.loss)
        form.advance_u(networks, config.optim)
        return report

    return one_iteration


def peak_memory(impl: Impl, model: ModelConfig, batch_size: int, arithmetic: Precision = "float32") -> float:
    """Gigabytes (10^9) of memory that a fresh process holds at most during two iterations, itself included."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, impl, model, batch_size, arithmetic).result()


def _peak(impl: Impl, model: ModelConfig, batch_size: int, arithmetic: Precision) -> float:
    one_iteration = step(impl, model, batch_size, arithmetic)
    one_iteration()
    one_iteration()
    # Not getrusage: its maximum is inherited from the parent process.
    return bytes_told("VmHWM") / 1e9


def compare_steps(model: ModelConfig, batch_size: int, rounds: int, arithmetic: Precision) -> dict[str, Any]:
    """Reference (float32) and fast iterations in turns: medians in seconds, their ratio, counts and peak memory."""
    # First, as this process will keep the memory that it asks for.
    peaks = peak_memory("reference", model, batch_size), peak_memory("torch", model, batch_size, arithmetic)
    reference, fast = step("reference", model, batch_size), step("torch", model, batch_size, arithmetic)
    pair = paired(reference, fast, rounds)
    return {
        "ratio": pair.ratio,
        "rounds": rounds,
        "reference": {"seconds": pair.median_a, **asdict(count(reference)), "peak_memory_gb": peaks[0]},
        "fast": {"seconds": pair.median_b, **asdict(count(fast)), "peak_memory_gb": peaks[1]},
    }
