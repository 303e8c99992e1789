"""Every network, forward and with backward, and the whole iteration, reference against fast, at the thesis's sizes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.conftest import Compare
from lorbms_fast import kernels
from lorbms_fast.config import Impl, ModelConfig, Precision
from lorbms_fast.engine.implementations import IMPLS
from lorbms_fast.measurement.apart import apart, peak_memory
from lorbms_fast.models import build
from lorbms_fast.types import Batch, Networks

BATCH = 12
ROUNDS = 5


@pytest.fixture(scope="module")
def networks() -> dict[Impl, Networks]:
    return {impl: build(ModelConfig(), impl).train() for impl in IMPLS}


def _forward(networks: Networks, impl: Impl, network: str, images: Tensor, codes: Tensor) -> Tensor:
    """One call of a network as the iteration makes it."""
    if network == "classifier":
        mask = torch.zeros(len(images), 4, dtype=torch.bool)
        return IMPLS[impl].classifier_logits(networks, images, Batch(images, images.expand(4, *images.shape), mask))[0]
    module: nn.Module = {"encoder": networks.enc, "decoder": networks.dec, "discriminator": networks.dsc}[network]
    (run,) = kernels.passes(module, 1)
    return run(codes if network == "decoder" else images)


@pytest.mark.parametrize("passes", ["forward", "forward and backward"])
@pytest.mark.parametrize("network", ["encoder", "decoder", "discriminator", "classifier"])
def test_network(networks: dict[Impl, Networks], network: str, passes: str, compare: Compare) -> None:
    images = torch.rand(BATCH, 3, 64, 64) * 2 - 1
    codes = torch.randn(BATCH, 4, 192)

    def work(impl: Impl) -> Callable[[], None]:
        def run() -> None:
            with torch.set_grad_enabled(passes != "forward"):
                result = _forward(networks[impl], impl, network, images, codes)
            if passes != "forward":
                result.square().mean().backward()

        return run

    compare(work("reference"), work("fast"), ROUNDS)


@pytest.mark.parametrize(
    ("batch", "arithmetic"),
    [(12, "float32"), (12, "bfloat16"), (4, "float32")],
    ids=["batch 12, float32", "batch 12, bfloat16", "batch 4, float32"],
)
def test_iteration(batch: int, arithmetic: Precision, compare: Compare, benchmark: Any) -> None:
    settings = ModelConfig(), batch
    with apart("reference", *settings) as reference, apart("fast", *settings, arithmetic) as fast:
        compare(reference, fast, 3)
        benchmark.extra_info["reference_peak_gb"] = reference.ask(peak_memory)
        benchmark.extra_info["fast_peak_gb"] = fast.ask(peak_memory)
