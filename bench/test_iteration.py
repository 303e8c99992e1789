"""The whole training iteration, reference against fast."""

from typing import Any

import pytest

from bench.conftest import Compare
from lorbms_fast.config import ModelConfig, Precision
from lorbms_fast.measurement.apart import apart

ROUNDS = 3


@pytest.mark.parametrize(
    ("batch", "arithmetic"),
    [(12, "float32"), (12, "bfloat16"), (4, "float32")],
    ids=["batch 12, float32", "batch 12, bfloat16", "batch 4, float32"],
)
def test_iteration(batch: int, arithmetic: Precision, compare: Compare, benchmark: Any) -> None:
    settings = ModelConfig(), batch
    with apart("reference", *settings) as reference, apart("fast", *settings, arithmetic) as fast:
        compare(reference, fast, ROUNDS)
        benchmark.extra_info["reference_peak_gb"] = reference.peak_memory()
        benchmark.extra_info["fast_peak_gb"] = fast.peak_memory()
