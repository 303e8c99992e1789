"""`lorbms-fast bench step` with processes that take the time they are told."""

import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from lorbms_fast.cli import main
from lorbms_fast.errors import UserError
from lorbms_fast.kernels._common import dispatch
from lorbms_fast.measurement import apart
from lorbms_fast.measurement.counts import Counts
from tests.processes import PROCESSES

KERNELS = {"seen": 700}
SECONDS = {"reference": 6.0, "compiled_reference": 4.0, "fast": 2.0, "captured": 1.0}


@pytest.fixture
def processes(monkeypatch):
    """What was started."""
    started = []

    @contextmanager
    def fake(form, model, batch_size, arithmetic, device, kernels):
        started.append(form)
        forms = {"triton": 17, "fused": 1} if kernels == "auto" and form in ("fast", "captured") else {}
        counts = Counts(*(0 for _ in Counts.__dataclass_fields__))
        answers = {apart.iteration_seconds: SECONDS[form], apart.peak_memory: 1.0, apart.counted: counts}
        yield SimpleNamespace(ask=(answers | {apart.launches: KERNELS["seen"]}).__getitem__, forms=forms)

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
    assert told[1].endswith("torch.compile 4.000 s, 1.00 GB peak memory, 0 s of compiling: fast is 2.00 times faster")


def test_on_a_gpu_the_graph_is_compared(processes, capsys, monkeypatch):
    pytest.importorskip("triton")
    from lorbms_fast.commands import bench
    from lorbms_fast.measurement import plan

    monkeypatch.setattr(bench, "device_named", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(plan, "count_iteration", lambda *settings: plan.Iteration([None] * 449, [None] * 334, 0, 0))
    main(["bench", "step", "--device", "cuda", "--rounds", "2", "--compiled-reference"])
    assert processes == ["reference", "fast", "compiled_reference", "captured"]
    told = capsys.readouterr().out
    assert "as a graph  1.0000 s" in told
    assert told.count("700 kernels") == 4
    assert "predicted of fast: 449 kernels of ours, 334 or more of torch's" in told
    assert "  6.00 times faster" in told
    assert "operations: 17 'triton', 1 'fused'" in told
    main(["bench", "step", "--device", "cuda", "--graphs", "off", "--kernels", "torch"])
    assert processes[4:] == ["reference", "fast"]
    told = capsys.readouterr().out
    assert "forms" not in told
    assert "predicted" not in told
    assert "not counted" not in told
    monkeypatch.setitem(KERNELS, "seen", 0)  # the profiler may not look
    main(["bench", "step", "--device", "cuda"])
    told = capsys.readouterr().out
    assert " 0 kernels" not in told
    assert told.count("kernels are not counted: torch's profiler saw nothing of cuda:0") == 1


@pytest.mark.parametrize("kernels", ["auto", "torch", "triton"])
def test_the_process_runs_the_forms_that_it_is_told(kernels, monkeypatch):
    in_force = []
    monkeypatch.setattr(apart, "step", lambda *settings: lambda: in_force.append(dispatch.in_force()))
    monkeypatch.setattr(dispatch, "kernels_run_on", lambda device: True)
    found = SimpleNamespace(rows=[SimpleNamespace(form="triton")] * 2)
    monkeypatch.setattr(apart, "forms_of_an_iteration", lambda *settings: found)
    for name in ("empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    forms = apart._make("fast", None, 1, "float32", torch.device("cpu"), kernels)
    apart._iterate()
    assert (forms, in_force) == ({}, ["fused"]) if kernels == "torch" else ({"triton": 2}, [kernels])
    assert dispatch.in_force() == "auto"


def test_kernels_alone_need_a_gpu(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "step", "--kernels", "triton"])
    assert "--kernels triton needs Triton and a GPU since Ampere, not cpu: use auto" in capsys.readouterr().err


def test_a_missing_gpu_is_told_with_the_remedy(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "step", "--device", "cuda"])
    assert "use --device cpu" in capsys.readouterr().err


def test_a_process_that_is_killed_or_crashes_is_told_of():
    with ProcessPoolExecutor(1, PROCESSES) as process, pytest.raises(UserError, match=r"memory .*, or crashed"):
        apart.Apart({}, process).ask(os.abort)
