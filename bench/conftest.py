"""The one fixture of the suites: reference and fast form timed in turns."""

from collections.abc import Callable
from typing import Any

import pytest

from lorbms_fast.measurement.apart import Apart
from lorbms_fast.measurement.apart import counted as counted_apart
from lorbms_fast.measurement.counts import count
from lorbms_fast.measurement.pairs import seconds

Compare = Callable[..., None]


def pytest_configure(config: pytest.Config) -> None:
    """Measure: `make test` skips benchmarks, but who types `pytest bench` wants them."""
    config.option.benchmark_skip = False


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Compare:
    """`compare(reference, fast, rounds)`: before every timed round of `fast` one of `reference` is timed.

    Both are rows of one group. What both count to goes into the extra info of `fast`, and all times, for bench.report.
    A `ceiling` is the name of a reference that does less than `fast` has to, so that it is not to be beaten. What moves
    bytes by other means than operations of torch's, or a few of a large tensor, is not `counted`.
    """

    def run(
        reference: Callable[[], object], fast: Callable[[], object], rounds: int, ceiling: str | None = None,
        counted: bool = True,
    ) -> None:  # fmt: skip
        fast()
        reference()
        reference_seconds: list[float] = []
        what, test = _words(request.node), benchmark.fullname
        benchmark.group, benchmark.name, benchmark.fullname = what, "fast", f"{test}[fast]"
        benchmark.pedantic(fast, setup=lambda: reference_seconds.append(seconds(reference)), rounds=rounds)
        if benchmark.stats is None:  # --benchmark-disable
            return
        benchmark.extra_info["what"] = what
        benchmark.extra_info["reference_seconds"] = reference_seconds
        benchmark.extra_info["fast_seconds"] = list(benchmark.stats.stats.data)
        benchmark.extra_info["ceiling"] = ceiling
        for name, work in (("reference", reference), ("fast", fast)) if counted else ():
            counts = work.ask(counted_apart) if isinstance(work, Apart) else count(work)
            benchmark.extra_info[f"{name}_counts"] = vars(counts)
        other = ceiling or "reference"
        _add_row(benchmark, other, f"{test}[{other}]", reference_seconds)

    return run


def _add_row(benchmark: Any, name: str, fullname: str, times: list[float]) -> None:
    """Give a benchmark's group another row, of times taken between its own."""
    of_benchmark = benchmark.stats, benchmark.extra_info
    benchmark.name, benchmark.fullname, benchmark.extra_info = name, fullname, {}
    row = benchmark._make_stats(1)
    for duration in times:
        row.update(duration)
    benchmark.stats, benchmark.extra_info = of_benchmark


def _words(node: pytest.Function) -> str:
    """A test's name as a reader would say it: `encoder dense block, 64x64`."""
    words = node.originalname.removeprefix("test_").replace("_", " ")
    return f"{words}, {node.callspec.id.replace('-', ', ')}" if hasattr(node, "callspec") else words
