"""Losses that are read late: none lost, in order, and nobody waits in the loop."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorbms_fast.engine import async_metrics
from lorbms_fast.engine.async_metrics import AsyncMetrics, HostCopy
from lorbms_fast.engine.divergence import NonFiniteMonitor
from lorbms_fast.engine.log import Log
from lorbms_fast.engine.trainer import Training
from lorbms_fast.run import Run
from lorbms_fast.training.setup import batch_source
from tests.conftest import TINY
from tests.lorbms_fast.engine import waiting


class Slow(async_metrics.HostCopy):
    """A reading that is there only when somebody has waited, or says so."""

    waited = 0
    arrived: frozenset[float] = frozenset()

    def here(self):
        return self._host.flatten()[0].item() in self.arrived

    def read(self):
        Slow.waited += not self.here()
        return super().read()


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr(async_metrics, "HostCopy", Slow)
    monkeypatch.setattr(Slow, "waited", 0)
    monkeypatch.setattr(Slow, "arrived", frozenset())


def test_readings_come_in_order_and_one_late_at_most(slow):
    under_way, seen = AsyncMetrics(), []
    for i in range(4):
        values = torch.tensor([float(i)])
        under_way.send(i, values)
        values.fill_(-1)  # as the next iteration overwrites them
        seen.append(list(under_way.arrived()))
    assert seen == [[], [(0, [0.0])], [(1, [1.0])], [(2, [2.0])]]
    assert Slow.waited == 3
    assert list(under_way.arrived()) == []
    assert list(under_way.arrived(left=0)) == [(3, [3.0])]


def test_what_never_arrives_ends_the_process_and_what_does_is_waited_for():
    asked = iter([False, False, True])
    async_metrics._wait(lambda: next(asked), 100)
    assert next(asked, None) is None
    hangs = (
        "from lorbms_fast.engine.async_metrics import _wait\ntry: _wait(lambda: False, 0.1)\nfinally: print('orderly')"
    )
    ended = subprocess.run([sys.executable, "-c", hangs], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "a kernel hangs" in ended.stderr
    assert "--resume RUN --kernels torch" in ended.stderr


def test_a_reading_that_is_there_is_given_out_at_once(slow):
    Slow.arrived = frozenset([1.0, 2.0])
    under_way = AsyncMetrics()
    for i in (1, 2, 3):
        under_way.send(i, torch.tensor([float(i)]))
    assert list(under_way.arrived(left=3)) == [(1, [1.0]), (2, [2.0])]
    assert Slow.waited == 0


def test_a_run_with_late_readings_logs_all_and_none_after_its_checkpoint(slow, store, tmp_path, monkeypatch):
    written, log_write, save = [], Log.write, Run.save
    monkeypatch.setattr(Log, "write", lambda log, i, numbers: (written.append(i), log_write(log, i, numbers))[1])
    monkeypatch.setattr(
        Run, "save", lambda run, progress, *what: (written.append(-progress.iteration), save(run, progress, *what))[1]
    )
    config = replace(TINY, iterations=9, log_every=2, checkpoint_every=5, sheet_every=100)
    Training.of(Run.create(tmp_path / "run", config, store.path), batch_source(config, store)).train()
    assert written == [2, 4, -5, 6, 8, -9]


class Waits(TorchDispatchMode):
    """Notes what would make the host wait for a GPU, but inside functions that may."""

    def __init__(self):
        super().__init__()
        self.seen, self.permitted = [], 0

    def note(self, what):
        if not self.permitted:
            self.seen.append(what)

    def noting(self, function):
        def call(*args, **kwargs):
            self.note(function.__name__)
            return function(*args, **kwargs)

        return call

    def permitting(self, function):
        def call(*args, **kwargs):
            self.permitted += 1
            try:
                return function(*args, **kwargs)
            finally:
                self.permitted -= 1

        return call

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if waiting.waits(func, args):
            self.note(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def waits(monkeypatch):
    waits = Waits()
    for method in ("tolist", "numpy", "cpu"):  # which wait on a GPU, and are no operations on a CPU
        monkeypatch.setattr(torch.Tensor, method, waits.noting(getattr(torch.Tensor, method)))
    for owner, function in ((HostCopy, "read"), (Training, "_look"), (Run, "save"), (Training, "_step")):
        monkeypatch.setattr(owner, function, waits.permitting(getattr(owner, function)))
    return waits


@pytest.mark.parametrize("arithmetic", ["float32", "float16"])
def test_nobody_waits_between_log_points(arithmetic, waits, store, tmp_path, monkeypatch):
    monkeypatch.setattr(Training, "_looking_is_free", False)  # as on a GPU
    read, read_at = NonFiniteMonitor.read, []

    def noted(watch, world, left):
        read_at.append((len(watch._before), left))
        return read(watch, world, left)

    monkeypatch.setattr(NonFiniteMonitor, "read", noted)
    config = replace(TINY, iterations=7, log_every=3, sheet_every=4, checkpoint_every=5, precision=arithmetic)
    config = replace(config, graphs="on", images="resident")
    training = Training.of(Run.create(tmp_path / "run", config, store.path), batch_source(config, store))
    with waits:
        training.train()
    assert waits.seen == []
    # Flaws are looked for at the log's entries 3 and 6, where they may still be on their way, checkpoint 5 and the end.
    assert read_at == [(3, 1), (2, 0), (1, 1), (1, 0)]
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_the_audit_sees_what_waits(waits):
    x = torch.ones(2)
    with waits:
        for wait in (lambda: x[0].item(), lambda: bool(x[0]), lambda: x.tolist(), lambda: x.numpy(), lambda: x[x > 0]):
            wait()
        AsyncMetrics().send(1, x)
    assert len(waits.seen) == 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make test-gpu")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_cuda_finds_nobody_waiting(store, tmp_path, monkeypatch):
    config = replace(TINY, iterations=200, log_every=5, sheet_every=1000, checkpoint_every=1000, images="resident")
    training = Training.of(Run.create(tmp_path / "run", config, store.path), batch_source(config, store))
    ordinary = training._after

    def strict_from_fifty_on(start, iteration):
        torch.cuda.set_sync_debug_mode("error" if 50 <= iteration < 199 else "default")
        return ordinary(start, iteration)

    monkeypatch.setattr(Training, "_after", lambda _, *where: strict_from_fifty_on(*where))
    training.train()
    torch.cuda.set_sync_debug_mode("default")
