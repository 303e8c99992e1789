"""`lorbms-fast bench step` with processes that take the time they are told."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from lorbms_fast.cli import main
from lorbms_fast.measurement import apart
from lorbms_fast.measurement.counts import Counts

SECONDS = {"reference": 6.0, "compiled_reference": 4.0, "fast": 2.0, "captured": 1.0}


@pytest.fixture
def processes(monkeypatch):
    """What was started."""
    started = []

    @contextmanager
    def fake(form, model, batch_size, arithmetic, device):
        started.append(form)
        counts = Counts(*(0 for _ in Counts.__dataclass_fields__))
        yield SimpleNamespace(seconds=lambda: SECONDS[form], peak_memory=lambda: 1.0, count=lambda: counts)

    monkeypatch.setattr(apart, "apart", fake)
    return started


def test_the_fast_iteration_is_compared_with_the_reference(processes, capsys):
    main(["bench", "step", "--rounds", "2"])
    assert processes == ["reference", "fast"]
    assert capsys.readouterr().out.splitlines()[-1] == "  3.00 times faster"


def test_the_compiled_reference_is_a_second_yardstick(processes, capsys):
    main(["bench", "step", "--rounds", "2", "--compiled-reference"])
    assert processes == ["reference", "fast", "compiled_reference"]
    told = capsys.readouterr().out.splitlines()[-2:]
    assert told[0] == "  3.00 times faster"
    assert told[1].endswith("torch.compile 4.000 s, 1.00 GB peak memory: fast is 2.00 times faster")
