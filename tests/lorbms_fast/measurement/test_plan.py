"""Predictions: the arithmetic behind them, and what is counted."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from lorbms_fast import config
from lorbms_fast.cli import main
from lorbms_fast.errors import UserError
from lorbms_fast.measurement import host, plan
from lorbms_fast.measurement.branches import Branch
from lorbms_fast.measurement.chains import Chain, Loops, chain
from lorbms_fast.measurement.gpus import GPUS, MULTIPROCESSORS, Gpu, gpu_called
from lorbms_fast.measurement.host import LAUNCHED, Host
from lorbms_fast.measurement.launches import Array
from lorbms_fast.measurement.peak import Alive, largest_batch
from lorbms_fast.measurement.plan import Iteration, Operation, predict
from lorbms_fast.measurement.profiled import NOTED, Seen, slowest
from lorbms_fast.measurement.traces import OTHERS
from lorbms_fast.measurement.work import Work
from tests.conftest import TINY

ROUND = Gpu("round", 90, 10, 1e9, half=100e12, tf32=50e12, bandwidth=1e12, memory=1e9)
HOST = Host(custom=60e-6, plain=5e-6)


def test_prediction_is_the_roofline_of_every_launch():
    product = Operation("product", Work(1e9, 1e3), 10, "bf16")  # 10 us of arithmetic
    copy = Operation("copy", Work(0, 4e6), 10, "fp32")  # 4 us of bandwidth
    tiny = Operation("tiny", Work(0, 8), 1, "fp32")  # nothing but a launch
    found = predict(Iteration([product], [copy, tiny], 1, 0), ROUND, HOST)
    assert found.peak == pytest.approx(14e-6, rel=1e-3)
    assert found.captured.least == pytest.approx(14e-6 / 0.8 + plan.REPLAYED[0], rel=1e-3)
    assert found.captured.most == pytest.approx(14e-6 / 0.4 + plan.REPLAYED[1], rel=1e-3)


def test_branches_share_the_gpu():
    def told(branch, programs, bytes=0.0):
        work = Work(1e6 * 100 * programs, bytes)  # 10 us of arithmetic at peak, in each multiprocessor taken
        return Operation("one", work, programs, "bf16", warps=64, registers=32, branch=branch)

    here, aside, again = Branch(0, False), Branch(0, True), Branch(2, True)
    assert told(here, 3).seconds(ROUND).least == pytest.approx(1e-5 / 0.8)

    def times(*operations):
        return plan.replayed(operations, ROUND).least * 0.8 / 1e-5

    assert times(told(None, 3), told(None, 5)) == pytest.approx(2)
    assert times(told(here, 3), told(aside, 5)) == pytest.approx(1)  # 8 of 10 multiprocessors
    assert times(told(here, 3), told(aside, 5), told(aside, 5)) == pytest.approx(2)  # one after the other
    assert times(told(here, 10), told(aside, 5)) == pytest.approx(1.5)  # no room
    assert times(told(here, 3), told(again, 5)) == pytest.approx(2)  # another place
    full = told(here, 3, 2e7), told(aside, 5, 2e7)  # 20 us of bandwidth each
    assert times(*full) == pytest.approx(4)


def test_without_graphs_the_host_is_waited_for():
    tiny = Operation("tiny", Work(0, 8), 1, "fp32")
    found = predict(Iteration([tiny] * 30, [tiny] * 100, 20, 0), ROUND, HOST)
    of_operators = 20 * 60e-6 + 100 * 5e-6
    assert found.launched.least == pytest.approx(of_operators + 30 * LAUNCHED[0])
    assert found.launched.most == pytest.approx(of_operators + 30 * LAUNCHED[1])


def test_a_host_is_measured():
    found = host.measured()
    assert 0 < found.plain < found.custom < 0.1


def test_a_chain_of_steps_takes_its_time_on_any_number_of_multiprocessors():
    # Ten steps whose loads go out two steps ahead wait for no load (265 / 2 < 150), or for every one of them.
    assert Chain((Loops(steps=10),)).cycles(100, 2) == (10 * 150, 10 * (250 + 265))
    assert Chain((Loops(steps=10),), stages=1).cycles(100, 2)[0] == 10 * (150 + 265)
    assert Chain((Loops(loads=3),)).cycles(100, 2) == (3 * 265, 3 * (480 + 250))
    # A step that takes 32 KB into shared memory and out again is as long as that.
    # At worst, addresses of 16 bytes each are worked out before.
    assert Chain((Loops(steps=1, tile=32_768),)).cycles(100, 2) == (512, 250 + 265 + 512 + 32_768 / 341)
    assert Chain((Loops(steps=10),), last=Loops(loads=1)).cycles(100, 2)[0] == 10 * 150 + 265


def test_programs_share_the_room_that_there_is():
    # 40 programs of 1,500 cycles, 20 at a time: two waves; at worst the last begins when all others are done.
    least, most = Chain((Loops(steps=10, programs=40),)).cycles(10, 2)
    assert (least, most) == (2 * 1500, 2 * 5150 + 5150)
    # Those of two kinds run beside each other: the longer one alone takes longer than all together would, spread.
    assert Chain((Loops(steps=100, programs=1), Loops(steps=1, programs=19))).cycles(10, 2)[0] == 100 * 150


def test_a_multiprocessor_holds_what_warps_registers_and_shared_memory_allow():
    hopper = MULTIPROCESSORS[90]
    assert hopper.resident(warps=8, registers=128, shared=0) == 2  # 65,536 registers are 16 warps of 32 x 128
    assert hopper.resident(warps=8, registers=32, shared=0) == 8  # 64 warps
    assert hopper.resident(warps=1, registers=32, shared=0) == 32  # programs
    assert hopper.resident(warps=1, registers=32, shared=75 * 1024) == 3  # 3 x 76 KB of 228
    few = Operation("few", Work(0, 8), 10, "fp32", Chain((Loops(steps=100, programs=40),)), warps=8)
    assert few.seconds(ROUND).least == pytest.approx(2 * 100 * 150 / 1e9)


def launch(name, programs=1, options=None, **arguments):
    arguments |= {"y": Array("bf16", 0)}
    return SimpleNamespace(name=name, programs=programs, options=options or {"num_stages": 3}, arguments=arguments)


SOLVE = {"H": 16, "W": 16, "KERNEL": 3, "G": 16, "MAPS": 64, "NORM": False, "SPLIT": False, "PRECISION": "tf32"}
SOLVE |= {"TILE_M": 128, "TILE_G": 16, "TILE_K": 32}


def test_chains_are_counted_from_the_loops():
    # Layers 1 to 3 read 16, 32 and 48 maps, each with nine taps, 32 numbers at a step, in two tiles; each is stored.
    found = chain(launch("dense_block.solve", 12, first=1, last=4, **SOLVE))
    (loops,) = found.kinds
    assert (loops.steps, loops.loads, loops.programs) == (2 * (5 + 9 + 14), 2 * 3, 12)
    assert loops.tile == (128 + 16) * 32 * 2
    # One layer with a program a tile: its last program goes through both tiles twice.
    split = chain(launch("dense_block.solve", 24, first=3, last=4, **SOLVE | {"NORM": True, "SPLIT": True}))
    assert split.kinds[0].steps == 14
    assert split.last.loads == 2 * 2
    back = chain(launch("dense_block.solve_transposed", 12, first=0, last=4, grad_y=None, **SOLVE))
    assert back.kinds[0].steps == 2 * (14 + 9 + 5)
    sums = chain(launch("partial_sums.add_kernel", parts=64))
    assert sums.kinds[0].loads == 2 + 64 / 4
    assert chain(launch("anything")).kinds[0].loads == 2


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


def test_what_was_there_is_not_counted():
    there, other = torch.zeros(1000), torch.zeros(10)
    with Alive([there]) as alive:
        there.add_(1)
        view, written = there[:5], other.add_(1)
    assert alive.peak == 4 * 10
    del view, written


def test_an_iteration_is_counted_whole():
    small, large = (plan.count_iteration(TINY.model, n, "bfloat16") for n in (2, 4))
    # Larger batches add up their weights' gradients from parts, with a launch more.
    assert 300 < len(small.ours) <= len(large.ours) < 1.2 * len(small.ours), (len(small.ours), len(large.ours))
    assert 300 < len(small.torchs) < 1500, len(small.torchs)
    assert small.peak_bytes < large.peak_bytes
    assert 100 < small.calls < len(small.ours)
    assert {operation.kernel for operation in small.ours} >= {"convolve", "gradients"}
    assert "bf16" in {operation.arithmetic for operation in small.torchs if operation.work.flops}
    # Both generator updates part twice, forward and back, and what goes aside is not what goes on.
    branches = {operation.branch for operation in small.operations} - {None}
    assert branches == {Branch(fork, aside) for fork in range(4) for aside in (False, True)}
    aside, here = ({o.kernel for o in small.ours if o.branch and o.branch.aside == side} for side in (True, False))
    assert "normalize_whole" in aside, aside
    assert "solve" in here - aside, here
    assert sum(o.work.flops for o in large.operations) > 1.5 * sum(o.work.flops for o in small.operations)


def counted_bytes(work):
    with plan._Counting() as counting:
        work()
    return [operation.work.bytes for operation in counting.found]


def test_what_changes_in_place_is_read_and_written():
    a, b = torch.ones(100), torch.ones(100)
    assert counted_bytes(lambda: a + b) == [1200]
    assert counted_bytes(lambda: a.add_(b)) == [1200]
    assert counted_bytes(lambda: a.copy_(b)) == [800]
    parameters, moments = [torch.ones(100)], [[torch.ones(100)], [torch.ones(100)]]
    arguments = {"lr": 0.1, "beta1": 0.9, "beta2": 0.9, "weight_decay": 0.0, "eps": 1e-8}

    def adam():  # returns nothing; reads four tensors and writes three
        torch._fused_adam_(parameters, [b], *moments, [], [a[0]], **arguments, amsgrad=False, maximize=False)

    assert counted_bytes(adam) == [7 * 400 + 4]


def test_interpreted_kernels_are_not_counted(monkeypatch):
    monkeypatch.setattr(plan, "INTERPRETED", True)
    with pytest.raises(UserError, match="TRITON_INTERPRET"):
        plan.count_iteration(TINY.model, 2, "bfloat16")


def iteration_of(n):
    product = Operation("dense_block.convolve H=4", Work(1e9, 1e6), 100, "bf16", kernel="convolve")
    other = Operation("dense_block.convolve H=8", Work(2e9, 1e6), 100, "bf16", kernel="convolve")
    return Iteration(
        [product, other],
        [Operation("torch: aten.add", Work(0, 1e6), 100, "fp32")],
        1,
        max(n * 10**8, 10**9 + n * 10**7),
    )


def test_the_command_prints_predictions(monkeypatch, capsys):
    monkeypatch.setattr(plan, "count_iteration", lambda model, n, precision: iteration_of(n))
    main(["plan", "--gpu", "h1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["predicted"] is True
    assert found["iterations"] == 50 * 28_238
    (h100,) = found["gpus"]
    expected = predict(iteration_of(12), next(gpu for gpu in GPUS if gpu.name == "H100"), HOST).captured
    assert h100["milliseconds_captured"] == pytest.approx([1e3 * expected.least, 1e3 * expected.most])
    assert h100["hours_captured"][1] == pytest.approx(expected.most * 50 * 28_238 / 3600)
    assert h100["largest_batch"] == 720
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    main(["plan"])
    shown, waiting = capsys.readouterr()
    assert "predicted, not measured" in shown
    assert "half a minute" in waiting
    assert all(gpu.name in shown for gpu in GPUS)
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "--gpu", "TITAN"])
    assert exit_.value.code == 2
    assert "'TITAN'" in capsys.readouterr().err


def test_gpus_are_known_by_their_drivers_names():
    names = {
        "A100": "NVIDIA A100-SXM4-80GB", "RTX 4090": "NVIDIA GeForce RTX 4090", "L40S": "NVIDIA L40S",
        "RTX 5090": "NVIDIA GeForce RTX 5090", "H100": "NVIDIA H100 80GB HBM3", "H200": "NVIDIA H200",
        "B200": "NVIDIA B200",
    }  # fmt: skip
    assert [gpu_called(name).name for name in names.values()] == list(names)
    for other in ("GeForce GTX 1080", "GH200 480GB", "GeForce RTX 4090 Laptop GPU", "GeForce RTX 5090 D", "GB200"):
        assert gpu_called(f"NVIDIA {other}") is None
    assert gpu_called("NVIDIA H200").bandwidth == 4.8e12


NOTE = {"preset": "thesis", "batch_size": 12, "precision": "bfloat16", "iterations": 2}


def trace(tmp_path, kernels, note=NOTE, name="trace.json.gz"):
    """A trace as torch writes it: kernels are (name, microseconds)."""
    events = [{"cat": "cpu_op", "name": "aten::add", "ts": 0, "dur": 1}]
    events += [{"cat": "kernel", "name": n, "ts": 10 * i, "dur": us} for i, (n, us) in enumerate(kernels)][::-1]
    text = json.dumps({"deviceProperties": [{"name": "NVIDIA H100 80GB HBM3"}], NOTED: note, "traceEvents": events})
    file = tmp_path / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return file


def test_what_was_predicted_is_compared_with_what_was_measured_line_by_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan, "count_iteration", lambda model, n, precision: iteration_of(n))
    file = trace(tmp_path, [("convolve", 10), ("convolve", 20), ("vectorized_add", 3)] * 2)
    main(["plan", "--measured", str(file), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["gpu"] == "H100"
    rows = [(line["name"], line["predicted"], line["seen"], round(1e6 * line["measured"])) for line in found["lines"]]
    assert rows == [("dense_block.convolve H=8", 1, 1, 20), ("dense_block.convolve H=4", 1, 1, 10), (OTHERS, 1, 1, 3)]
    assert found["lines"][0]["expected"]["least"] == iteration_of(1).ours[1].seconds(gpu_called("H100")).least
    # As often as predicted is what tells shapes apart; else a kernel is one line, with all that it took.
    main(["plan", "--measured", str(trace(tmp_path, [("convolve", 10)] * 3, name="other.json"))])
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if "convolve" in line)
    assert [cell.strip() for cell in line.split("│")[1:4]] == ["convolve", "2", "1.5"]


def test_a_trace_that_cannot_be_compared_says_why(tmp_path, capsys):
    for file, said in (
        (trace(tmp_path, []), "no kernels of a GPU"),
        (trace(tmp_path, [("a", 1)], note={"preset": "thesis"}, name="short.json"), "does not say what ran"),
        (tmp_path / "missing.json", "no such file"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["plan", "--measured", str(file)])
        assert exit_.value.code == 2
        assert said in capsys.readouterr().err
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(SystemExit):
        main(["plan", "--measured", str(tmp_path / "bad.json")])
    assert "is no trace" in capsys.readouterr().err


def test_the_profile_is_a_trace_and_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(config.PRESETS, "tiny", TINY)
    out = tmp_path / "t.json"
    main(
        ["profile", "--preset", "tiny", "--batch-size", "2", "--iterations", "1", "--device", "cpu", "--out", str(out)]
    )
    found = json.loads(out.read_text())
    assert found["traceEvents"]
    assert found[NOTED] == {"preset": "tiny", "batch_size": 2, "precision": "float32", "iterations": 1}
    shown = capsys.readouterr().out
    assert "measured" in shown
    assert "aten::" in shown
    with pytest.raises(SystemExit) as exit_:
        main(["profile", "--top", "0"])
    assert exit_.value.code == 2


def test_on_a_gpu_replays_of_a_graph_are_profiled(tmp_path, monkeypatch, capsys):
    from lorbms_fast.commands import profile as command

    done = []
    monkeypatch.setattr(command, "device_named", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(command, "captured_step", lambda *settings: lambda: done.append(settings))
    writes = SimpleNamespace(export_chrome_trace=lambda path: Path(path).write_text("{}"))

    kernels = [Seen("convolve", 6, 3000.0), Seen("Memcpy HtoD", 2, 100.0)]

    def profiled(work, device, times, note):
        work()
        return kernels, writes

    monkeypatch.setattr(command, "profiled", profiled)
    main(["profile", "--device", "cuda", "--out", str(tmp_path / "t.json")])
    assert len(done) == 2  # one warms up and records, one is traced
    shown = " ".join(capsys.readouterr().out.split())
    assert "fast, as a graph" in shown
    assert "3 kernels" in shown
    kernels.clear()
    with pytest.raises(SystemExit):
        main(["profile", "--device", "cuda", "--out", str(tmp_path / "none.json")])
    assert "profiler saw nothing of cuda:0" in capsys.readouterr().err
    assert not (tmp_path / "none.json").exists()


def test_spans_of_the_program_are_no_kernels():
    def event(name, kind, microseconds, annotation):
        times = {"self_cpu_time_total": microseconds, "self_device_time_total": microseconds}
        of = {"device_type": SimpleNamespace(name=kind), "is_user_annotation": annotation}
        return SimpleNamespace(key=name, count=1, **of, **times)

    events = [event("solve", "CUDA", 3, False), event("aten::add", "CPU", 9, False)]
    events += [event("Optimizer.step#Adam.step", kind, 5, True) for kind in ("CUDA", "CPU")]
    assert slowest(events, torch.device("cuda")) == [Seen("solve", 1, 3)]
    assert [one.name for one in slowest(events, torch.device("cpu"))] == ["aten::add", "Optimizer.step#Adam.step"]
