"""The one fixture of the suites: reference and fast form timed in turns."""

from collections.abc import Callable
from typing import Any

import pytest

from lorbms_fast.measurement.apart import Apart
from lorbms_fast.measurement.counts import count
from lorbms_fast.measurement.pairs import seconds

Compare = Callable[..., None]


@pytest.fixture
def compare(benchmark: Any) -> Compare:
    """`compare(reference, fast, rounds)`: before every timed round of `fast` one of `reference` is timed.

    The benchmark's own times are those of `fast`; the reference's, and what both count to, go into its extra info.
    """

    def run(reference: Callable[[], object], fast: Callable[[], object], rounds: int) -> None:
        fast()
        reference()
        reference_seconds: list[float] = []
        benchmark.pedantic(fast, setup=lambda: reference_seconds.append(seconds(reference)), rounds=rounds)
        benchmark.extra_info["reference_seconds"] = reference_seconds
        benchmark.extra_info["fast_seconds"] = list(benchmark.stats.stats.data)
        for name, work in (("reference", reference), ("fast", fast)):
            counts = work.count() if isinstance(work, Apart) else count(work)
            benchmark.extra_info[f"{name}_counts"] = vars(counts)

    return run
