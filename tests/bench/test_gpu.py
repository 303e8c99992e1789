"""The kit for a machine with a GPU, rehearsed: its processes, its judgement, its phases at tiny shapes."""

import json
import math
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("triton")
import torch
from triton.compiler import CompilationError

from bench.gpu import __main__ as kit
from bench.gpu.cases import Case, cases
from bench.gpu.findings import Findings, read
from bench.gpu.judging import poisoned, results
from bench.gpu.page import write_page
from bench.gpu.phases import compilation, models, operations
from bench.gpu.setting import SMALL, Setting
from lorbms_fast import kernels
from lorbms_fast.config import ModelConfig
from lorbms_fast.engine.first_use.judging import errors_of, judged
from lorbms_fast.kernels.dense_block.triton.sizes import MANY

CPU = torch.device("cpu")


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path, True, time.monotonic() + 1000)


def lines(setting):
    return [line["cells"] | {"wrong": line["wrong"]} for line in read(setting.findings) if "cells" in line]


def test_all_phases_go_through_on_a_cpu(tmp_path):
    command = [sys.executable, "-m", "bench.gpu", "--rehearse", "--minutes", "30", "--out", str(tmp_path)]
    ran = subprocess.run(command, cwd=kit.ROOT, capture_output=True, text=True)
    page = (tmp_path / "GPU.md").read_text()
    assert ran.returncode == 0, ran.stdout + ran.stderr + page
    assert [line.partition(":")[0] for line in ran.stdout.splitlines()[:-1]] == list(kit.PHASES)
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == [f"## {phase.capitalize()}" for phase in kit.PHASES]
    found = [line for line in read(tmp_path / "findings.jsonl") if line.get("table") == "Errors"]
    names = {case.name for case in cases(SMALL, 2, 4)}
    assert {line["cells"]["operation"] for line in found} == names
    assert all(line["cells"]["twice the same"] == "yes" for line in found)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda y: 1.001 * y,
        lambda y: y.detach() + (1.001 * y - 1.001 * y.detach()),
        lambda y: y + torch.empty_like(y).masked_fill(torch.arange(y.numel()).view(y.shape) > 0, 0),
        lambda y: y + torch.rand(1).item() * 1e-6,
    ],
    ids=["output", "gradient", "one element not written", "two runs differ"],
)
def test_wrong_kernels_are_told(mistake, setting):
    def run(x, impl):
        y = kernels.instance_norm_relu(x, 1e-5, "fused" if impl == "triton" else impl)
        return mistake(y) if impl == "triton" else y

    operations.check(Case("wrong", run, ((2, 3, 4, 4),)), 2, Findings(setting.findings, "operations"), setting)
    assert lines(setting)[0]["wrong"]
    assert write_page(setting, ["operations"])[0] > 0
    assert "wrong:**" in setting.page.read_text()


def test_a_kernel_that_does_not_compile_is_named_with_its_reason(setting, monkeypatch):
    def run(findings, setting):
        try:
            raise AttributeError("module 'triton.language' has no attribute 'dott'")
        except AttributeError as error:
            raise CompilationError("def kernel(x): tl.dott(x, x)", None, repr(error)) from error

    monkeypatch.setattr(kit.importlib, "import_module", lambda name: SimpleNamespace(run=run))
    assert kit.run_phase("compilation", setting) == 1
    assert "has no attribute 'dott'" in setting.findings.read_text()


def test_errors_are_judged_by_the_definitions_own():
    exact = [torch.ones(4, dtype=torch.float64)]
    for off in (1e-4, 1e-2, 1.6):
        own = [torch.full((4,), 1 + off)]

        def of(value, own=own):
            return judged(iter([errors_of([torch.full((4,), value)], own, exact)] * 2)).wrong

        assert of(1 + 3 * off) is None
        assert of(1 + 5 * off)
        assert of(math.nan)


def test_inputs_are_exact_in_half_precision():
    for case in cases(SMALL, 2, 8):
        for x in case.inputs(CPU):
            assert torch.equal(x.half().float(), x)
            assert torch.equal(x.bfloat16().float(), x)


def test_nothing_is_drawn_again_inside_a_graph(monkeypatch):
    """Not even for an operation that returns many tensors, as a spectral norm of all weights does."""
    case = Case("many", lambda x, impl: [x * i for i in range(20)], ((3,),))
    results(case, case.inputs(CPU), torch.float32, None)
    inputs = case.inputs(CPU)
    monkeypatch.setattr(torch, "Generator", None)
    results(case, inputs, torch.float32, None)


def test_what_a_smaller_gpu_has_no_memory_for_is_not_measured(setting, monkeypatch):
    def run(x, impl):
        raise torch.OutOfMemoryError("CUDA out of memory")

    operations.check(Case("large", run, ((2, 3, 4, 4),)), 128, Findings(setting.findings, "operations"), setting)
    assert write_page(setting, ["operations"]) == (0, 1)
    for free, processes in ((141, 16), (79, 9), (23, 2), (3, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free << 30, 0))
        monkeypatch.setattr(compilation.os, "sched_getaffinity", lambda pid: range(32))
        assert compilation.side_by_side(CPU) == processes


def test_a_competitor_that_does_not_run_here_keeps_nothing_from_being_timed(setting, monkeypatch):
    def fails(device):
        raise RuntimeError("libnvrtc.so.13 is missing")

    def runs(device):
        return (lambda: torch.ones(3)), (lambda: torch.ones(3))

    monkeypatch.setattr(operations, "RAW", {"first": fails, "second": runs})
    monkeypatch.setattr(operations, "APEX", {})
    monkeypatch.setattr(operations.importlib.util, "find_spec", lambda name: name)
    findings = Findings(setting.findings, "operations")
    operations.compare_with_others(findings, SimpleNamespace(rehearse=False, device=CPU, milliseconds=lambda work: 1.0))
    assert [line["operation"] for line in lines(setting)] == ["second"]
    assert "first: RuntimeError: libnvrtc.so.13 is missing" in setting.findings.read_text()


def test_models_of_others_are_judged_and_what_is_not_there_is_told(setting, monkeypatch):
    def errors(name, layout, dtype, device):
        if name == "nnU-Net PlainConvUNet 2D":
            raise ImportError("No module named 'dynamic_network_architectures'")
        return (0.5 if name == "FC-DenseNet103" else 0.01), 0.01

    monkeypatch.setattr(models, "CASES", ["nnU-Net PlainConvUNet 2D", "CycleGAN generator", "FC-DenseNet103"])
    monkeypatch.setattr(models, "errors", errors)
    monkeypatch.setattr(models, "measure", lambda *row: SimpleNamespace(cells={"times faster": 2.0}))
    findings = Findings(setting.findings, "models")
    models.run(findings, SimpleNamespace(rehearse=False, device=CPU, kernels=nullcontext, left=lambda: 100))
    wrong = [line["model"] for line in lines(setting) if line["wrong"]]
    assert (len(lines(setting)), wrong) == (16, 4 * ["FC-DenseNet103"])
    assert write_page(setting, ["models"]) == (4, 1)


def test_memory_is_poisoned_inside_only():
    with poisoned():
        assert torch.empty(5).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_model_is_covered():
    names = [case.name for case in cases(ModelConfig(), 12, 64)]
    assert len(names) == len(set(names))
    for operation in (
        *(
            "dense block, encoder",
            "dense block, decoder",
            "instance norm",
            "resize",
            "pooled",
            "max pooling",
            "CoordConv",
        ),
        *("output convolution", "grouped batch norm", "spectral norm", "advance of", "mixing of the chunks in use"),
        *("loss head", "classification loss", "discrimination loss", "batch assembly", "step of Adam"),
    ):
        assert any(operation in name for name in names), operation
    definition = next(case for case in cases(SMALL, 2, 8) if case.name == "step of Adam")
    rate, t, flawed, *_ = results(definition, definition.inputs(CPU), torch.float64, "reference")
    assert (t, flawed.sum()) == (7, 0)
    assert 0 < rate < 4e-4


def test_few_images_and_many_are_checked(setting):
    """More programs an image of a dense block, and one for it."""
    found = [case for n in replace(setting, rehearse=False).batches for case in cases(ModelConfig(), n, 64)]
    images = [case.shapes[0][0] for case in found if "dense block, encoder" in case.name]
    assert min(images) < MANY <= max(images)


BEHAVIOURS = {
    "good": "findings.row('Table', what='a', value=1.0)",
    "raises": "findings.row('Table', what='b', value=2.0); raise ValueError('no such thing')",
    "dies": "findings.row('Table', what='c', value=3.0); import os; os.kill(os.getpid(), 9)",
    "hangs": "findings.row('Table', what='d', value=4.0); import time; time.sleep(100)",
}


def test_no_phase_spoils_another(setting, monkeypatch, tmp_path):
    program = tmp_path / "phase.py"
    program.write_text(
        "import sys\nfrom bench.gpu import __main__ as kit\nfrom bench.gpu.findings import Findings\n"
        "import types\nbehaviours = " + repr(BEHAVIOURS) + "\nphase = sys.argv[sys.argv.index('--alone') + 1]\n"
        "module = types.SimpleNamespace(run=lambda findings, setting: exec(behaviours[phase]))\n"
        "kit.importlib.import_module = lambda name: module\nkit.PHASES = behaviours\nsys.exit(kit.main(sys.argv[1:]))\n"
    )
    monkeypatch.setattr(kit, "PHASES", dict.fromkeys(BEHAVIOURS, 1))
    monkeypatch.setattr(kit, "PROGRAM", [str(program)])
    began = time.monotonic()

    def seconds_of(setting, phases):  # the last one hangs after three others; on a busy machine all of them are slow
        return 1 + time.monotonic() - began if phases[0] == "hangs" else 60.0

    monkeypatch.setattr(kit, "seconds_of", seconds_of)
    monkeypatch.setenv("PYTHONPATH", str(kit.ROOT))
    assert kit.run_all(setting, list(BEHAVIOURS), tmp_path / "caches") == 1
    assert [line["value"] for line in lines(setting)] == [1.0, 2.0, 3.0, 4.0]
    page = setting.page.read_text()
    assert "ValueError: no such thing" in page
    assert "ended with status -9" in page
    assert "stopped at its deadline of" in page
    assert "- good:" not in page
    assert page.index("**2 wrong:**") < page.index("**Not measured:**") < page.index("- hangs: stopped")
    assert json.loads(setting.findings.read_text().splitlines()[0])["phase"] == "good"


def test_what_was_not_measured_is_no_success(setting, monkeypatch, tmp_path):
    def start(arguments, environment, log):
        Findings(setting.findings, "operations").missed("no time left: 3 of 41 operations checked")
        return subprocess.Popen([sys.executable, "-c", ""])

    assert kit.run_all(setting, ["operations"], tmp_path / "caches", start) == kit.MISSED
    assert "**Not measured:**\n\n- operations: no time left: 3 of 41" in setting.page.read_text()


def test_without_a_gpu_it_says_what_to_type(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kit.main(["--out", str(tmp_path)]) == 2
    assert "--rehearse" in capsys.readouterr().err
