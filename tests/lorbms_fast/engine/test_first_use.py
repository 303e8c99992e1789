"""Kernels that fail on first use, or later: what is said, which form runs, and that training goes on as without them.

Stand-ins take the place of two kernels' launches: the operator around them, and its backward, are the real ones.
"""

import json
import math
import os
import re
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from triton.compiler import CompilationError

from bench.gpu.tape import Tape
from lorbms_fast import kernels
from lorbms_fast.commands.verify import try_kernels
from lorbms_fast.config import preset_named
from lorbms_fast.engine import first_use
from lorbms_fast.engine.distributed import World
from lorbms_fast.engine.first_use import choose_forms, judging, workers
from lorbms_fast.engine.first_use.calls import Call, Spec, recorded
from lorbms_fast.engine.first_use.judging import Verdict, judge
from lorbms_fast.engine.first_use.triton_cache import use_writable_cache
from lorbms_fast.engine.first_use.verdicts import as_json, load, machine, save
from lorbms_fast.engine.first_use.workers import judged_apart
from lorbms_fast.engine.trainer import Training
from lorbms_fast.errors import UserError
from lorbms_fast.kernels import lorbms, use_impl
from lorbms_fast.kernels._common import dispatch, operation
from lorbms_fast.kernels.lorbms.chunk_mixing.triton import kernels as mixing
from lorbms_fast.measurement import launches
from lorbms_fast.run import BEGINNING, Run
from lorbms_fast.training.session import run_training
from lorbms_fast.training.setup import batch_source
from tests.conftest import TINY
from tests.lorbms_fast.engine.test_cuda_graph import CPU, Trained, numbers_of
from tests.processes import PROCESSES

CONFIG = replace(TINY, batch_size=1)
FUSED, KERNEL = 2.0, 0.5
"""Milliseconds that the injected clock shows, by default."""


class Launched:
    """Stands in for a kernel: launched on a grid, it computes in torch."""

    def __init__(self, compute):
        self.compute, self.launches = compute, 0

    def __getitem__(self, grid):
        return self._launch

    def _launch(self, *arguments):
        self.launches += 1
        self.compute(*arguments)


def select(f_ref, f_q, mask, f_mix, size, block):
    f_mix.copy_(torch.where(mask[..., None], f_q, f_ref))


def backward(grad, mask, df_ref, df_q, size, block):
    df_ref.copy_(torch.where(mask[..., None], 0.0, grad))
    df_q.copy_(torch.where(mask[..., None], grad, 0.0))


def wrong(f_ref, f_q, mask, f_mix, *sizes):
    select(f_ref, f_q, mask, f_mix, *sizes)
    f_mix.mul_(1.01)


def no_number(f_ref, f_q, mask, f_mix, *sizes):
    select(f_ref, f_q, mask, f_mix, *sizes)
    f_mix[0, 0, 0] = torch.nan


def uncompilable(*arguments):
    raise CompilationError("def select(): ...", None, "PassManager::run failed\nand a long listing")


@pytest.fixture
def launched(monkeypatch):
    """Kernels that run here: those of `mix_chunks` alone, which count their launches."""
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    real = judging._kernels
    monkeypatch.setattr(
        judging, "_kernels", lambda call, *rest: real(call, *rest) if call.operation is lorbms.mix_chunks else []
    )
    for name, compute in (("select", select), ("backward", backward)):
        monkeypatch.setattr(mixing, name, Launched(compute))
    yield mixing
    operation.install({}, set())


def judging_by(**clock):
    """Judge in this process, by a clock that shows these times of `mix_chunks`."""

    def judging(families, device):
        for calls in families:
            times = iter((clock | {"fused": FUSED, "triton": KERNEL} | clock).values())
            ours = calls[0].operation is lorbms.mix_chunks
            yield judge(calls, device, lambda work, device: next(times) if ours else 1.0)  # noqa: B023

    return judging


def chosen(captured, tmp_path, **options):
    """Choose the forms of an iteration as training does."""
    works = [partial(captured.rehearse, size) for size in captured.sizes[-1:]]
    options = {"judging": judging_by(), "path": tmp_path / "kernels.json"} | options
    with captured.undone():
        found = choose_forms(works, CPU, **options)
    found.tell()
    return found


def row_of(found, name="mix_chunks"):
    (row,) = [row for row in found.rows if row.calls[0].operation.__name__ == name]
    return row


def assert_trains_as_without(captured, store, iterations=2):
    """Compare losses with those of operations that name the fused form."""
    plain, source = Trained(CONFIG, "float32", torch.float32), batch_source(CONFIG, store)
    for i in range(iterations):
        found = captured(i, numbers_of(i)).stacked()
        with use_impl("fused"):
            expected = plain.ordinary(i, [source.batch(i)]).stacked()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


class Watched(Tape):
    """A tape that tells when it records."""

    recording = False

    def record(self, work):
        self.recording = True
        try:
            return super().record(work)
        finally:
            self.recording = False


@pytest.fixture
def captured(store, launched, monkeypatch):
    """An iteration of which `mix_chunks` alone is recorded."""

    def of_mixing(*given):
        return {key: calls for key, calls in recorded(*given).items() if key[0] == "mix_chunks"}

    monkeypatch.setattr(first_use, "recorded", of_mixing)
    trained = Trained(CONFIG, "float32", torch.float32)
    return trained.captured(store, Watched(trained.state))


def test_the_fastest_that_is_right_runs(launched, captured, store, tmp_path, capsys):
    row = row_of(chosen(captured, tmp_path))
    assert row.form == "triton"
    assert row.cells["times torch"] == FUSED / KERNEL
    before = launched.select.launches, launched.backward.launches
    assert_trains_as_without(captured, store)
    assert launched.select.launches > before[0]
    assert launched.backward.launches > before[1]
    assert "instead" not in capsys.readouterr().out


FAILURES = {
    "to be fast": ("select", select, "", ""),
    "at compile time": (
        "select",
        uncompilable,
        r"'triton' failed \(CompilationError: PassManager::run failed\):",
        "not be measured",
    ),
    "by one percent": ("select", wrong, r"'triton' is wrong \(result 0 is 1.0e-02 off, the .* [0-9.]+e", "4.00 times"),
    "with NaN": ("select", no_number, r"'triton' is wrong \(result 0 is nan off, the .* [0-9.]+e", "4.00 times"),
    "in the backward": ("backward", uncompilable, r"'triton' failed \(CompilationError", "not be measured"),
}


@pytest.mark.parametrize("when", FAILURES)
def test_a_kernel_that_fails_is_replaced(when, launched, captured, store, tmp_path, capsys, monkeypatch):
    name, compute, why, cost = FAILURES[when]
    monkeypatch.setattr(launched, name, Launched(compute))
    judging = judging_by() if why else judging_by(fused=1.0, triton=3.0)
    assert row_of(chosen(captured, tmp_path, judging=judging)).form == "fused"
    said = [line for line in capsys.readouterr().out.splitlines() if "instead" in line]
    wanted = rf"mix_chunks 4 x 4, float32: {why}.* the fused torch form runs instead, .*{cost}"
    assert [bool(re.match(wanted, line)) for line in said] == ([True] if why else []), said
    launched.select.launches = 0
    assert_trains_as_without(captured, store)
    assert launched.select.launches == 0
    assert captured.graphs > 0


@pytest.mark.parametrize("name", ["select", "backward"])
def test_a_kernel_that_fails_in_a_capture_is_replaced_and_captured_without(
    name, launched, captured, store, tmp_path, capsys, monkeypatch
):
    tape = captured.recorder
    compute = getattr(launched, name).compute

    def fails(*arguments):
        if tape.recording:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        compute(*arguments)

    monkeypatch.setattr(launched, name, Launched(fails))
    assert row_of(chosen(captured, tmp_path)).form == "triton"
    assert_trains_as_without(captured, store)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "cannot be" in line]
    assert re.match(
        r"an iteration of \d+ candidates cannot be captured \(RuntimeError: operation not permitted when stream is "
        r"capturing\): from now on mix_chunks, mix_used in the fused torch form",
        line,
    )
    assert captured.graphs > 0


def test_kernels_triton_never_falls_back(launched, captured, tmp_path, monkeypatch):
    monkeypatch.setattr(launched, "select", Launched(wrong))
    with pytest.raises(UserError, match=r"--kernels triton: mix_chunks 4 x 4, float32: 'triton' is wrong .* auto"):
        chosen(captured, tmp_path, kernels="triton")
    monkeypatch.setattr(launched, "select", Launched(select))
    slow = judging_by(fused=1.0, triton=3.0)
    found = chosen(captured, tmp_path, kernels="triton", judging=slow, retune=True)
    assert row_of(found).form == "triton"


def test_verdicts_are_kept_and_a_broken_file_is_told_of(launched, captured, tmp_path, capsys):
    path = tmp_path / "cache" / "kernels.json"
    first = chosen(captured, tmp_path, path=path)
    assert first.tried == len(first.rows)
    capsys.readouterr()

    def nothing(families, device):
        raise AssertionError("tried again")

    again = chosen(captured, tmp_path, path=path, judging=nothing)
    assert [row.cells for row in again.rows] == [row.cells for row in first.rows]
    assert capsys.readouterr().out == f"{len(first.rows)} operations run as {path} says; --retune tries them again\n"
    assert chosen(captured, tmp_path, path=path, retune=True).tried == len(first.rows)
    whole = path.read_text()
    for broken, why in (
        (whole[:100], "JSONDecodeError"),
        ("", "JSONDecodeError"),
        (whole.replace('"version": 1', '"version": 0'), "another version"),
        (whole.replace('"torch": "', '"torch": "0.'), "another machine"),
        (whole.replace('"own": ', '"own": "x", "was": '), "ValidationError"),
    ):
        path.write_text(broken)
        capsys.readouterr()
        assert chosen(captured, tmp_path, path=path).tried == len(first.rows)
        said = capsys.readouterr().out
        assert f"{path} cannot be used (" in said
        assert why in said
    assert json.loads(path.read_text()) == json.loads(whole)


def test_files_hold_no_bare_nan(launched, captured, tmp_path):
    path = tmp_path / "kernels.json"
    found = chosen(captured, tmp_path, path=path)
    (key, verdict), *_ = load(path, found.machine).items()
    save(path, found.machine, {key: replace(verdict, own=math.inf, errors={"fused": math.nan, "triton": 0.5})})

    def refused(constant):
        raise AssertionError(constant)

    json.loads(path.read_text(), parse_constant=refused)
    json.loads(as_json({"cells": [{"error": math.nan}]}), parse_constant=refused)
    for text in (path.read_text(), path.read_text().replace("null", "NaN")):  # as older versions wrote
        path.write_text(text)
        kept = load(path, found.machine)[key]
        assert math.isnan(kept.own)
        assert math.isnan(kept.errors["fused"])
        assert kept.errors["triton"] == 0.5


def mixed(*chunks):
    """Works that mix codes of these lengths."""
    return [partial(lorbms.mix_chunks, *torch.randn(2, 3, 4, chunk), torch.eye(3, 4).bool()) for chunk in chunks]


def test_a_kernel_that_is_wrong_at_one_shape_runs_at_the_others(launched, tmp_path, monkeypatch, capsys):
    def wrong_at_seven(f_ref, *rest):
        (wrong if f_ref.shape[-1] == 7 else select)(f_ref, *rest)

    monkeypatch.setattr(launched, "select", Launched(wrong_at_seven))
    found = choose_forms(mixed(5, 7), CPU, judging=judging_by(), path=tmp_path / "kernels.json")
    assert {row.cells["shape"]: row.form for row in found.rows} == {"4x5": "triton", "4x7": "fused"}
    found.tell()
    assert capsys.readouterr().out.count("runs instead") == 1


def test_the_table_in_a_file_has_its_longest_names_whole(launched, tmp_path, capsys):
    def relu_grouped_batch_norm():
        raise NotImplementedError

    form = "triton: whole images"
    verdict = Verdict(1e-3, {"fused": 1e-3, form: 1e-3}, {"fused": 5.0, form: 0.05})
    specs = [Spec((n, 256, 128, 128), torch.bfloat16, True, True, None) for n in (18, 192)]
    calls = [Call(relu_grouped_batch_norm, ((spec,), {}), "bfloat16", True) for spec in specs]
    found = choose_forms(mixed(5), CPU, judging=judging_by(), path=tmp_path / "kernels.json")
    capsys.readouterr()
    replace(found, rows=[first_use.Row(calls, verdict, form)]).tell(whole=True)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "1.0e-03" in line]
    cells = ["relu_grouped_batch_norm", "256x128x128", "18-192", "bfloat16", form, "1.0e-03", "1.0e-03", "5.0e-02"]
    assert re.split("  +", row.strip()) == [*cells, "100.00"]


def test_what_only_the_machine_of_the_moment_lacked_is_tried_again(launched, tmp_path, monkeypatch, capsys):
    path = tmp_path / "kernels.json"

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(launched, "select", Launched(full))
    found = choose_forms(mixed(5), CPU, judging=judging_by(), path=path)
    found.tell()
    said = capsys.readouterr().out
    assert "No space left on device): the fused torch form runs instead" in said
    assert "1 of these had to do with the machine as it is now: the next run tries them again" in said
    monkeypatch.setattr(launched, "select", Launched(select))
    (row,) = choose_forms(mixed(5), CPU, judging=judging_by(), path=path).rows
    assert row.form == "triton"


def test_runs_at_the_same_time_keep_each_others_verdicts(launched, tmp_path):
    path = tmp_path / "kernels.json"

    def meanwhile(families, device):
        choose_forms(mixed(7), CPU, judging=judging_by(), path=path)
        yield from judging_by()(families, device)

    choose_forms(mixed(5), CPU, judging=meanwhile, path=path)
    assert choose_forms(mixed(5, 7), CPU, judging=judging_by(), path=path).tried == 0
    choose_forms(mixed(5), CPU, judging=judging_by(), path=path, retune=True)
    assert choose_forms(mixed(5, 7), CPU, judging=judging_by(), path=path).tried == 0


@pytest.mark.parametrize("place", ["", "file/cache", "/proc/cache"])
def test_a_cache_of_tritons_that_cannot_be_written_is_replaced(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    given = str(tmp_path / place) if place.startswith("file") else place
    monkeypatch.setenv("TRITON_CACHE_DIR", given)
    use_writable_cache()
    assert (instead := Path(os.environ["TRITON_CACHE_DIR"])).is_dir()
    assert str(instead) != given
    assert re.fullmatch(rf"Triton cannot keep kernels in '{given}' \([^)]+\): .*\n", capsys.readouterr().out)
    use_writable_cache()
    assert os.environ["TRITON_CACHE_DIR"] == str(instead)
    assert capsys.readouterr().out == ""


def test_an_edited_kernel_is_another_machines(tmp_path, monkeypatch):
    (tmp_path / "kernel.py").write_text("y = x\n")
    monkeypatch.setattr(kernels, "__path__", [str(tmp_path)])
    before = machine(CPU)
    (tmp_path / "kernel.py").write_text("y = 2 * x\n")
    assert machine(CPU) != before


def test_verdicts_that_cannot_be_kept_are_used(launched, captured, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    found = chosen(captured, tmp_path, path=tmp_path / "file" / "kernels.json")
    assert row_of(found).form == "triton"
    assert "what was found of the kernels is not kept" in capsys.readouterr().out


def test_a_shape_that_nobody_tried_falls_back_as_it_is_called(launched, monkeypatch):
    monkeypatch.setattr(launched, "select", Launched(uncompilable))
    operation.install({("mix_chunks", "another"): "triton"}, set())
    f_ref, f_q = torch.randn(2, 3, 4, 5)
    mask = torch.eye(3, 4).bool()
    monkeypatch.setattr(dispatch, "_chosen", "auto")
    monkeypatch.setattr(lorbms.chunk_mixing, "select_impl", lambda impl, x: impl or "triton")
    with pytest.warns(RuntimeWarning, match=r"mix_chunks: its kernel failed \(CompilationError"):
        found = lorbms.mix_chunks(f_ref, f_q, mask)
    assert torch.equal(found, lorbms.mix_chunks(f_ref, f_q, mask, impl="reference"))
    assert launched.select.launches == 1
    lorbms.mix_chunks(f_ref[:2], f_q[:2], mask[:2])  # at another shape nobody tries any more
    assert launched.select.launches == 1


def test_a_variant_that_fails_leaves_the_others():
    verdict = Verdict(errors={"fused": 0, "triton: a": 0, "triton: b": 0}, failures={"triton: a": "is wrong"})
    verdict.milliseconds = {"fused": 2, "triton: a": 1, "triton: b": 1.5}
    assert verdict.best() == "triton: b"
    assert replace(verdict, failures={"fused": "is wrong"}).best() == "triton: a"
    verdict.milliseconds["fused"] = 1.2
    assert (verdict.best(), verdict.best(at_any_price=True)) == ("fused", "triton: b")


@pytest.mark.parametrize("wish", ["auto", "torch"])
def test_a_run_notes_its_forms(wish, launched, store, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = replace(TINY, kernels=wish, iterations=1, images="resident")
    run = Run.create(tmp_path / "run", config, store.path)
    run_training(run, store)
    noted = run.folder / "kernels.json"
    if wish == "torch":
        assert launched.select.launches == 0
        assert not noted.exists()
        return
    facts = json.loads(noted.read_text())
    assert facts["machine"]["torch"] == torch.__version__
    (row,) = [row for row in facts["operations"] if row["operation"] == "mix_chunks"]
    assert {"fused", "triton"} == row["milliseconds"].keys()
    assert "times torch" in capsys.readouterr().out


def test_a_cpu_pays_for_nothing(store, tmp_path, monkeypatch):
    monkeypatch.setattr(first_use, "recorded", lambda *args: pytest.fail("recorded"))
    run = Run.create(tmp_path / "run", replace(TINY, iterations=1), store.path)
    run_training(run, store)
    assert not (run.folder / "kernels.json").exists()
    with pytest.raises(UserError, match="--kernels triton needs Triton and a GPU since Ampere, not cpu: use auto"):
        run_training(Run.create(tmp_path / "other", replace(TINY, kernels="triton"), store.path), store)


def test_nothing_is_interpreted_for_a_gpu(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    gpu = torch.device("cuda")
    assert (dispatch.kernels_run_on(CPU), dispatch.kernels_run_on(gpu)) == (True, False)
    run = Run.create(tmp_path / "run", TINY, store.path)
    training = replace(Training.of(run, batch_source(TINY, store)), device=gpu)
    assert training.choose_forms(BEGINNING) is None
    assert "TRITON_INTERPRET is set: no kernel of ours runs on the GPU" in capsys.readouterr().out


def test_verify_tries_a_gpus_kernels(captured, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = preset_named("demo").model
    assert try_kernels(CPU, model, 1, "auto", retune=False) == 0
    assert try_kernels(CPU, model, 1, "auto", retune=False) == 0
    assert capsys.readouterr().out.count("mix_chunks") == 2  # it was looked up, and is printed all the same


def test_all_processes_take_the_firsts_verdicts(captured, tmp_path):
    first = chosen(captured, tmp_path)

    class Second(World):
        def shared(self, make):
            return next(told)

    told = iter([{}, None, *(row.verdict for row in first.rows)])  # none was known; something was compiled

    found = chosen(captured, tmp_path, world=Second(1, 2), judging=None, path=tmp_path / "none")
    assert [row.cells for row in found.rows] == [row.cells for row in first.rows]
    assert [*told] == []
    assert not (tmp_path / "none").exists()


def test_luck_of_the_definition_is_told_from_a_wrong_result():
    def judged(found, own):
        return judging.judged([judging.Error(*each, 1e-7)] for each in zip(found, own, strict=True)).wrong

    lucky = [1e-5, *[1e-3] * 7]
    assert judged([1e-3] * 8, lucky) is None
    assert judged([1e-2] * 8, lucky)
    assert judged([1e-3] * 7 + [math.nan], lucky)
    for none in (math.nan, math.inf):  # the definition has no number there, and is no excuse for the others
        assert judged([1e-2] * 8, [*lucky[:7], none])
        assert judged([1e-3] * 7 + [math.nan], [*lucky[:7], none]) is None


def test_an_error_of_the_definition_is_none_of_a_form(monkeypatch):
    def defined(call, device, draw):
        if draw:
            raise torch.OutOfMemoryError("of the definition")
        return real(call, device, draw)

    real = judging._defined
    monkeypatch.setattr(judging, "_defined", defined)
    monkeypatch.setattr(judging, "errors_of", lambda *results: [judging.Error(1.0, 1e-9, 0.0)])
    call = Call(kernels.max_pool2x2, ((Spec.of(torch.randn(2, 3, 8, 8)),), {}), "float32", False)
    assert judge([call], CPU).failures.keys() == {"triton"}


def test_further_draws_are_others():
    mask, logits, images = torch.tensor([True, False]), torch.tensor([0.0, 2.0]), torch.randn(5000, 3)
    call = Call(kernels.max_pool2x2, (tuple(map(Spec.of, (mask, logits, images))), {}), "float32", False)
    for draw in range(3):
        (m, l, x), again = call.drawn(CPU, draw), call.drawn(CPU, draw)
        assert all(map(torch.equal, (m, l, x), again))
        assert torch.equal(m, mask)
        assert l[0] == 0
        assert (l[1] == 2) == (draw == 0)
        assert 0 < abs(l[1] - 2) < 0.2 or draw == 0
        assert torch.equal(x, call.drawn(CPU)[2]) == (draw == 0)


def test_gradients_come_in_the_layout_of_what_was_returned():
    x, seen = torch.randn(2, 5, 8, 8).contiguous(memory_format=torch.channels_last).requires_grad_(), []

    def follows(x, impl):
        y = x * 2
        y.register_hook(lambda g: seen.append(g.stride()))
        return y

    call = Call(follows, ((Spec.of(x),), {}), "float32", True)
    call.run(call.leaves(call.drawn(CPU)), "fused")
    assert seen == [x.stride()]


def test_a_form_that_rounds_what_it_returns_is_right_all_the_same():
    x = torch.randn(8, 16, 12, 12, dtype=torch.bfloat16, requires_grad=True)
    scale, shift = (torch.randn(16, requires_grad=True) for _ in range(2))
    given = (*map(Spec.of, (x, scale, shift)), 4)
    verdict = judge([Call(kernels.relu_grouped_batch_norm, (given, {}), "bfloat16", True)], CPU)
    assert verdict.failures == {}
    assert 0 < verdict.errors["fused"] < 0.01


def ends_its_process(x, impl=None):
    os._exit(1)


def hangs(x, impl=None):
    time.sleep(1000)


def test_a_kernel_that_hangs_is_told_of(monkeypatch):
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda method: PROCESSES)  # begins at once
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 80 << 30))
    spec = Spec.of(torch.randn(2, 3, 8, 8))
    good, bad = ([Call(each, ((spec,), {}), "float32", False)] for each in (kernels.max_pool2x2, hangs))
    judging = judged_apart([good, bad, good], CPU)
    found = [next(judging)]
    monkeypatch.setattr(workers, "DEADLINE", 0.1)
    found.append(next(judging))
    with monkeypatch.context() as patch:
        patch.setattr(workers, "launch", hangs)
        assert list(workers._compiled([bad, bad], CPU, 2)) == []
    monkeypatch.setattr(workers, "DEADLINE", None)
    found += judging
    assert [verdict.failures for verdict in found] == [{}, {"triton": "did not come to an end in 0 s"}, {}]
    assert found[1].best() == "fused"
    (line,) = first_use.Row(bad, found[1], "fused").messages()
    assert line == (
        "hangs 3 x 8 x 8, float32: 'triton' did not come to an end in 0 s: "
        "the fused torch form runs instead, what that costs could not be measured"
    )


def test_an_iteration_in_kernels_makes_the_calls_that_were_recorded(store):
    trained = Trained(CONFIG, "bfloat16", torch.float32)
    captured, asked = trained.captured(store, None), set()

    def note(call, args, kwargs):
        asked.add(operation.key_of(call.__name__, args, kwargs))

    with captured.undone():
        known = {*recorded([partial(captured.rehearse, captured.sizes[0])], CPU)}
    with captured.undone(), launches.recorded(), operation.watched(note):
        captured.rehearse(captured.sizes[-1])
    assert asked <= known
    assert {"dense_block_activated", "pooled_conv2d", "dense_block_maps", "resize_conv"} < {key[0] for key in asked}


@pytest.mark.slow
def test_a_kernel_that_ends_its_process_is_told_of(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 << 30, 80 << 30))
    spec = Spec.of(torch.randn(2, 3, 8, 8))
    good, bad = ([Call(each, ((spec,), {}), "float32", False)] for each in (kernels.max_pool2x2, ends_its_process))
    found = [verdict for verdict in judged_apart([good, bad, good], CPU) if verdict is not None]
    assert [verdict.failures for verdict in found] == [{}, {"triton": "ended the process that tried it"}, {}]
    assert found[0].errors == {"fused": 0.0}
    assert found[1].best() == "fused"
