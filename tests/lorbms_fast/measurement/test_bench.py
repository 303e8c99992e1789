"""`lorbms-fast bench step` with processes that take the time they are told."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from lorbms_fast.cli import main
from lorbms_fast.measurement import apart, pairs
from lorbms_fast.measurement.counts import Counts

SECONDS = {("reference", False): 6.0, ("reference", True): 4.0, ("fast", False): 2.0}


@pytest.fixture
def processes(monkeypatch):
    """What was started, by implementation and whether compiled."""
    started = []

    @contextmanager
    def fake(impl, model, batch_size, arithmetic="float32", compiled=False):
        started.append((impl, compiled))
        counts = Counts(*(0 for _ in Counts.__dataclass_fields__))
        yield SimpleNamespace(seconds=SECONDS[impl, compiled], peak_memory=lambda: 1.0, count=lambda: counts)

    monkeypatch.setattr(apart, "apart", fake)
    monkeypatch.setattr(pairs, "seconds", lambda work: work.seconds)
    return started


def test_the_fast_iteration_is_compared_with_the_reference(processes, capsys):
    main(["bench", "step", "--rounds", "2"])
    assert processes == [("reference", False), ("fast", False)]
    assert capsys.readouterr().out.splitlines()[-1] == "  3.00 times faster"


def test_the_compiled_reference_is_a_second_yardstick(processes, capsys):
    main(["bench", "step", "--rounds", "2", "--compiled-reference"])
    assert processes == [("reference", False), ("fast", False), ("reference", True)]
    told = capsys.readouterr().out.splitlines()[-2:]
    assert told[0] == "  3.00 times faster"
    assert told[1].endswith("torch.compile 4.000 s, 1.00 GB peak memory: fast is 2.00 times faster")
