"""The whole training iteration, reference against fast."""

import pytest

from bench.conftest import Compare
from lorbms_fast.config import ModelConfig
from lorbms_fast.engine.precision import Precision
from lorbms_fast.measurement.step import peak_memory, step

ROUNDS = 3


@pytest.mark.parametrize(("batch", "arithmetic"), [(12, "float32"), (12, "bfloat16"), (4, "float32")])
def test_iteration(batch: int, arithmetic: Precision, compare: Compare, benchmark) -> None:
    model = ModelConfig()
    # First, as this process will keep the memory that it asks for.
    benchmark.extra_info["reference_peak_gb"] = peak_memory("reference", model, batch)
    benchmark.extra_info["fast_peak_gb"] = peak_memory("torch", model, batch, arithmetic)
    compare(step("reference", model, batch), step("torch", model, batch, arithmetic), ROUNDS)
