"""Predictions: the arithmetic behind them, and what is counted."""

import json

import pytest
import torch

pytest.importorskip("triton")

from lorbms_fast import config
from lorbms_fast.cli import main
from lorbms_fast.errors import UserError
from lorbms_fast.measurement import plan
from lorbms_fast.measurement.gpus import GPUS, Gpu
from lorbms_fast.measurement.peak import Alive, largest_batch
from lorbms_fast.measurement.plan import Iteration, Operation, predict
from lorbms_fast.measurement.work import Work
from tests.conftest import TINY

ROUND = Gpu("round", 90, 10, half=100e12, tf32=50e12, bandwidth=1e12, memory=1e9)


def test_prediction_is_the_roofline_of_every_launch():
    product = Operation(Work(1e9, 1e3), 10, "bf16")  # 10 us of arithmetic
    copy = Operation(Work(0, 4e6), 10, "fp32")  # 4 us of bandwidth
    tiny = Operation(Work(0, 8), 1, "fp32")  # nothing but a launch
    found = predict(Iteration([product], [copy, tiny], 0), ROUND)
    assert found.peak == pytest.approx(14e-6, rel=1e-3)
    assert found.expected == pytest.approx((10e-6 + 4e-6) / plan.OF_PEAK + plan.REPLAYED, rel=1e-3)
    assert found.launched == found.expected
    assert predict(Iteration([], [tiny] * 100, 0), ROUND).launched == pytest.approx(100 * plan.LAUNCHED)


def test_memory_grows_along_a_line():
    counted = [(n, 100_000_000 + n * 10_000_000) for n in (4, 8)]
    assert largest_batch(counted, 1e9) == 80


def test_tensors_alive_are_summed():
    with Alive() as alive:
        a = torch.zeros(1000)
        b = a[:10].mul(2.0)
        del a
        c = torch.ones(500)
    assert alive.peak == 4 * 1010
    assert alive._now == 4 * 510
    del b, c
    assert alive._now == 0


def test_an_iteration_is_counted_whole():
    small, large = (plan.count_iteration(TINY.model, n, "bfloat16") for n in (2, 4))
    # Larger batches add up their weights' gradients from parts, with a launch more.
    assert 300 < len(small.ours) <= len(large.ours) < 1.2 * len(small.ours), (len(small.ours), len(large.ours))
    assert 300 < len(small.torchs) < 1500, len(small.torchs)
    assert small.peak_bytes < large.peak_bytes
    assert "bf16" in {operation.arithmetic for operation in small.torchs if operation.work.flops}
    assert sum(o.work.flops for o in large.operations) > 1.5 * sum(o.work.flops for o in small.operations)


def test_interpreted_kernels_are_not_counted(monkeypatch):
    monkeypatch.setattr(plan, "INTERPRETED", True)
    with pytest.raises(UserError, match="TRITON_INTERPRET"):
        plan.count_iteration(TINY.model, 2, "bfloat16")


def test_the_command_prints_predictions(monkeypatch, capsys):
    counted = Iteration([Operation(Work(1e9, 1e6), 100, "bf16")] * 10, [Operation(Work(0, 1e6), 100, "fp32")], 10**9)
    monkeypatch.setattr(plan, "count_iteration", lambda model, n, precision: counted._at(n))
    monkeypatch.setattr(Iteration, "_at", lambda self, n: Iteration(self.ours, self.torchs, n * 10**8), raising=False)
    main(["plan", "--gpu", "h1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["predicted"] is True
    assert found["iterations"] == 50 * 28_238
    (h100,) = found["gpus"]
    seconds = predict(counted, next(gpu for gpu in GPUS if gpu.name == "H100"))
    assert h100["hours_expected"] == pytest.approx(seconds.expected * 50 * 28_238 / 3600)
    assert h100["largest_batch"] == 720
    main(["plan"])
    shown = capsys.readouterr().out
    assert "predicted, not measured" in shown
    assert all(gpu.name in shown for gpu in GPUS)
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "--gpu", "TITAN"])
    assert exit_.value.code == 2
    assert "'TITAN'" in capsys.readouterr().err


def test_the_profile_is_a_trace_and_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(config.PRESETS, "tiny", TINY)
    main(["profile", "--preset", "tiny", "--batch-size", "2", "--iterations", "1", "--out", str(tmp_path / "t.json")])
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    shown = capsys.readouterr().out
    assert "measured" in shown
    assert "aten::" in shown
    with pytest.raises(SystemExit) as exit_:
        main(["profile", "--top", "0"])
    assert exit_.value.code == 2
