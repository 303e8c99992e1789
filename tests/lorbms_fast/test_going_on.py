"""`--resume`: with another batch size, other settings, into another folder, on a store that moved or is another one."""

import errno
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lorbms_fast import checkpoint
from lorbms_fast.atomic_io import atomic_write, write_json
from lorbms_fast.cli import main
from lorbms_fast.config import to_json
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.store import ImageStore, checksum
from lorbms_fast.engine.trainer import Training
from lorbms_fast.errors import UserError
from lorbms_fast.run import Run, load_networks
from lorbms_fast.training import session
from lorbms_fast.training.setup import batch_source
from tests.conftest import TINY, store_of


@pytest.fixture
def run(store, tmp_path, monkeypatch) -> Path:
    """Two iterations of batches of 3, in a store of 24 images."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.json").write_text(to_json(replace(TINY, iterations=2, sheet_every=100)))
    train(store.path, "--out", "run", "--config", "tiny.json")
    return tmp_path / "run"


def train(*arguments: object) -> None:
    main(["train", *map(str, arguments)])


def refused(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        train(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def iterations(run: Path) -> list[int]:
    return [int(path.name) for path in Run.open(run).checkpoints()]


@pytest.mark.parametrize(
    ("batch_size", "epochs", "expected"),
    [(3, 1, 8), (6, 1, 5), (9, 1, 4), (18, 1, 3), (5, 1, 5), (6, 2, 9), (24, 1, 2), (24, 2, 3)],
)
def test_a_pass_ends_when_its_images_do(batch_size, epochs, expected, run, capsys):
    """6 of 24 images have been seen: (24 - 6) // batch_size more batches are in the first pass."""
    train("--resume", run, "--epochs", epochs, "--batch-size", batch_size)
    assert iterations(run)[-1] == expected
    assert ("nothing to do" in capsys.readouterr().out) == (expected == 2)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 7, 9, 11, 24])
def test_no_image_is_taken_twice_in_a_pass(batch_size, store):
    for before in (2, 3, 5):
        first = batch_source(replace(TINY, batch_size=before), store)
        for taken in range(first.batches_per_epoch):
            images = first.images_after(0, taken)
            assert images == taken * before
            second = batch_source(replace(TINY, batch_size=batch_size), store).going_on(images)
            number, left = second.batch_number(images), (24 - images) // batch_size
            assert second.batches_per_epoch - number == left
            seen = [row for n in range(taken) for row in first.rows(n).tolist()]
            rows = [row for n in range(number, number + left) for row in second.rows(n).tolist()]
            assert len({*seen, *rows}) == taken * before + left * batch_size
            assert second.images_after(images, left) == 24
            if left > 1:  # interrupted on its way, it goes on with the same batches
                after = second.images_after(images, 1)
                again = second.going_on(after)
                assert again.batch_number(after) == number + 1
                assert again.rows(number + 1).tolist() == second.rows(number + 1).tolist()
            assert second.rows(number + left).tolist() == replace(second, first_image=0).rows(number + left).tolist()


def test_settings_given_on_resume_are_kept_and_said(run, capsys):
    train("--resume", run, "--iterations", 3, "--batch-size", 6)
    assert "batch_size is 6, not 3; iterations is 3, not 2" in capsys.readouterr().out
    assert Run.open(run).config == replace(TINY, iterations=3, batch_size=6, sheet_every=100)
    train("--resume", run, "--iterations", 4)
    said = capsys.readouterr().out
    assert "batch 6," in said
    assert "batch_size is" not in said


def test_a_run_at_its_end_has_nothing_to_do(run, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    train("--resume", run, "--iterations", 1, "--batch-size", 6)
    said = capsys.readouterr().out
    assert "nothing to do" in said
    assert "has finished 2 iterations, and --iterations 1 asks for no more" in said
    assert "done" not in said
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_copy_of_a_run_at_its_end_is_whole_and_told(run, capsys):
    capsys.readouterr()
    train("--resume", run, "--out", "other")
    said = capsys.readouterr().out
    assert f"other goes on from {run}" in said
    assert "nothing to do: other has finished 2 iterations" in said
    files = [{path.relative_to(top) for path in top.rglob("*.json*")} for top in (run, Path("other"))]
    assert files[1] == files[0]
    train("--resume", "other", "--iterations", 3)
    assert iterations(Path("other")) == [2, 3]


def test_curves_of_a_run_at_its_end_that_cannot_be_drawn_are_a_warning(run, capsys):
    """A copy's files may have any times; numbers of an older version lack some."""
    metrics, curves = run / "metrics.jsonl", run / "curves.png"
    metrics.write_text(metrics.read_text().replace('"psnr"', '"psnr_of_old"'))
    os.utime(curves, ns=(0, 0))
    train("--resume", run)
    said = capsys.readouterr()
    assert "nothing to do" in said.out
    assert f"{curves} is not drawn anew: {metrics} has entries without psnr" in said.err
    assert curves.stat().st_mtime_ns == 0


def test_few_iterations_log_nothing_as_the_page_says(run, store, monkeypatch):
    train(store.path, "--out", "few", "--config", "tiny.json", "--log-every", 20)
    assert iterations(Path("few")) == [2]
    assert Path("few/metrics.jsonl").read_text() == ""
    page = " ".join((Path(__file__).parents[2] / "docs/cli.md").read_text().split())
    assert "`metrics.jsonl` (a line every `--log-every` iterations, none before)" in page
    monkeypatch.setattr(session, "blur_levels", lambda images: 1 / 0)  # no curves, and no images for them
    train("--resume", "few")


def test_epochs_are_counted_where_iterations_were_set_before_and_not_beside_iterations(run, store):
    Path("pass.toml").write_text("epochs = 1")
    Path("both.json").write_text(json.dumps({"epochs": 1, "iterations": 3}))
    train(store.path, "--out", "whole", "--config", "tiny.json", "--epochs", 1)
    train("--resume", run, "--out", "by_file", "--config", "pass.toml")
    train("--resume", run, "--out", "by_both", "--config", "both.json")
    train("--resume", run, "--epochs", 1, "--iterations", 3)
    assert [iterations(Path(name))[-1] for name in ("whole", "by_file", "by_both", "run")] == [8, 8, 3, 3]


@pytest.mark.parametrize("option", ["--preset demo", "--preset=thesis", "--variant hinge"])
def test_presets_are_for_beginnings(option, run, capsys):
    assert "would begin another run than" in refused(capsys, "--resume", run, *option.split())


def test_a_settings_file_changes_what_it_names(run):
    Path("few.json").write_text(json.dumps({"iterations": 3}))
    train("--resume", run, "--config", "few.json")
    assert Run.open(run).config == replace(TINY, iterations=3, sheet_every=100)


def test_a_fork_goes_on_elsewhere(run, capsys):
    train("--resume", run, "--out", "fork", "--iterations", 4)
    train("--resume", run, "--iterations", 4)
    assert iterations(Path("fork")) == [2, 4]
    logs = [(folder / "metrics.jsonl").read_bytes() for folder in (run, Path("fork"))]
    newest = [(Run.open(folder).latest() / checkpoint.MODEL).read_bytes() for folder in (run, Path("fork"))]
    assert logs[0] == logs[1]
    assert newest[0] == newest[1]
    assert "fork is a run already" in refused(capsys, "--resume", run, "--out", "fork")


def test_a_fork_leaves_the_run_as_it_was(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    train("--resume", run, "--out", "fork", "--iterations", 3)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("iterations_then", [3, 2])  # in a run at its end, too
def test_a_store_that_moved_is_asked_for_and_noted(iterations_then, run, store, tmp_path, capsys):
    store.path.rename(tmp_path / "moved")
    assert "--resume" in (said := refused(capsys, "--resume", run, "--iterations", 3))
    assert f"is not at {store.path} any more" in said
    train("moved", "--resume", run, "--iterations", iterations_then)
    assert f"the store is moved, not {store.path}" in capsys.readouterr().out
    assert Run.open(run).config.iterations == iterations_then
    train("--resume", run, "--iterations", 4)
    assert iterations(run)[-1] == 4


@pytest.mark.parametrize("noted", [True, False])
def test_other_images_are_refused_unless_asked_for(noted, run, photographs, tmp_path, capsys):
    if not noted:  # as in runs of before
        facts = json.loads((run / "run.json").read_text())
        del facts["images"]
        (run / "run.json").write_text(json.dumps(facts))
    few = tmp_path / "few"
    few.mkdir()
    for path in sorted(photographs.iterdir())[:12]:
        shutil.copy(path, few)
    store_of(few, tmp_path / "other")
    assert "holds other images" in refused(capsys, "other", "--resume", run, "--iterations", 3)
    assert "holds other images" in refused(capsys, "other", "--resume", run, "--out", "fork", "--iterations", 3)
    assert not (tmp_path / "fork").exists()
    train("other", "--resume", run, "--iterations", 3, "--other-images")
    assert Run.open(run).store == tmp_path / "other"
    train("--resume", run, "--iterations", 4)


def test_a_store_that_was_made_anew_in_its_place_is_noticed(run, store, photographs, tmp_path, capsys):
    shutil.rmtree(store.path)
    store_of(photographs, store.path, side=32)
    assert "holds other images" in refused(capsys, "--resume", run, "--iterations", 3)


@pytest.mark.parametrize("changed", ["who", "tau"])
def test_other_neighbours_are_refused_unless_asked_for(changed, run, store, capsys):
    train("--resume", run, "--iterations", 3)
    table = NeighbourTable.load(store)
    others = {"rows": table.rows[:, :, ::-1].copy()} if changed == "who" else {"tau": table.tau * 1.001}
    replace(table, **others).save(store)
    assert "has other neighbours than those" in refused(capsys, "--resume", run, "--iterations", 4)
    train("--resume", run, "--iterations", 4, "--other-images")
    assert "goes on with other neighbours than before" in capsys.readouterr().out
    train("--resume", run, "--iterations", 5)
    assert iterations(run)[-1] == 5


def test_the_same_images_and_neighbours_made_again_are_no_others(run, store):
    table, index = NeighbourTable.load(store), store.path / "index.parquet"
    pq.write_table(pq.read_table(index), index, compression="none")
    facts = json.loads((store.path / "store.json").read_text())
    facts["sha256"][index.name] = checksum(index)
    write_json(store.path / "store.json", facts)
    again = replace(
        table, distances=table.distances * np.float32(1.001), tau=table.tau * (1 + 1e-9), facts={"found": "again"}
    )
    again.save(ImageStore.open(store.path))
    train("--resume", run, "--iterations", 3)
    assert iterations(run)[-1] == 3


@pytest.mark.parametrize(("left", "said"), [(None, "has no neighbours yet"), (b"", "neighbours.parquet is damaged")])
def test_neighbours_that_are_gone_are_not_called_others(left, said, run, store, capsys):
    path = store.path / "neighbours.parquet"
    path.unlink()
    if left is not None:
        path.write_bytes(left)
    assert said in refused(capsys, "--resume", run, "--iterations", 3)


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "a terminal that is gone"), UserError("a full disk")])
def test_what_cannot_be_said_or_drawn_loses_no_iteration(fault, run, monkeypatch):
    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(Training, "_look", fail)
    with pytest.raises(SystemExit):
        train("--resume", run, "--iterations", 4)
    assert iterations(run)[-1] == 4


def test_networks_of_checkpoints_that_counted_batches_can_be_used_and_not_trained_on(run, capsys):
    """As version 2 wrote them."""
    path = Run.open(run).latest()
    facts = checkpoint.facts_of(path)
    del facts["images"]
    state = {"format": "lorbms-fast checkpoint", "version": 2} | facts | {"batches": 6}
    with atomic_write(path / checkpoint.STATE) as partial:
        partial.write_text(json.dumps(state | {"seal": checkpoint._seal(state)}))
    assert "counts batches" in refused(capsys, "--resume", run, "--iterations", 3)
    assert load_networks(run).training is False


def test_an_interruption_is_told_and_ends_with_its_status(run, monkeypatch, capsys):
    step = Training._step

    def interrupted(training):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(training)

    monkeypatch.setattr(Training, "_step", interrupted)
    with pytest.raises(SystemExit) as ended:
        train("--resume", run, "--iterations", 4)
    assert ended.value.code == 130
    assert "stopped after iteration 3: go on with" in capsys.readouterr().out
    assert iterations(run)[-1] == 3


def test_an_interruption_in_the_last_iteration_leaves_nothing_out_unsaid(run, monkeypatch, capsys):
    """The pass ends with it, after which scenes are measured where that is asked for."""
    step = Training._step
    monkeypatch.setattr(Training, "_step", lambda training: os.kill(os.getpid(), signal.SIGTERM) or step(training))
    last = ["--iterations", 3, "--batch-size", 18]
    whole = shutil.copytree(run, run.with_name("whole"))
    train("--resume", whole, *last)
    assert "done: " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="130"):
        train("--resume", run, *last, "--evaluation.features", "descriptor")
    assert f"not measured yet:  lorbms-fast evaluate generation {run}\n" in capsys.readouterr().out
    assert iterations(run)[-1] == 3


def test_curves_that_an_interruption_left_out_are_drawn_by_the_next(run, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(session, "draw_curves", interrupt)
        with pytest.raises(SystemExit, match="130"):
            train("--resume", run, "--iterations", 3)
    curves = run / "curves.png"
    before = curves.stat().st_mtime_ns
    train("--resume", run)
    assert curves.stat().st_mtime_ns > before


def test_settings_that_nothing_was_learned_with_are_not_kept(run, capsys):
    before = (run / "config.json").read_text()
    assert "--graphs on needs" in refused(capsys, "--resume", run, "--iterations", 4, "--graphs", "on")
    assert (run / "config.json").read_text() == before
    train("--resume", run, "--iterations", 3)
    assert iterations(run)[-1] == 3


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError("CUDA out of memory."), OSError(errno.ENOSPC, "full")])
def test_settings_that_do_not_fit_are_not_kept_and_a_store_as_little(fault, run, store, tmp_path, monkeypatch, capsys):
    before = [(run / name).read_text() for name in ("config.json", "run.json")]
    shutil.copytree(store.path, tmp_path / "moved")

    def fail(*_: object) -> None:
        raise fault

    monkeypatch.setattr(Training, "_iterate", fail)
    with pytest.raises(SystemExit) as ended:
        train("moved", "--resume", run, "--iterations", 4, "--batch-size", 12)
    said = capsys.readouterr().out
    assert ended.value.code == 2
    assert [(run / name).read_text() for name in ("config.json", "run.json")] == before
    assert "config.json is as before again: nothing was learned with other settings" in said
    assert "run.json is as before again: nothing was learned from moved" in said


def test_settings_that_something_was_learned_with_are_kept(run, monkeypatch, capsys):
    gone = iter([False, True])
    monkeypatch.setattr(NeighbourBatches, "gone", lambda self: run if next(gone, True) else None)
    refused(capsys, "--resume", run, "--iterations", 9, "--log-every", 1)
    assert iterations(run)[-1] == 4
    assert Run.open(run).config.iterations == 9


def test_settings_that_cannot_be_written_are_not_said_to_be_kept(run, monkeypatch, capsys):
    def refuse(_: Run) -> None:
        raise UserError("read-only")

    monkeypatch.setattr(Run, "_write", refuse)
    capsys.readouterr()
    with pytest.raises(SystemExit):
        train("--resume", run, "--iterations", 3)
    assert "from now on kept" not in capsys.readouterr().out


def test_a_run_whose_checkpoints_are_gone_does_not_begin_again_unsaid(run, capsys):
    train("--resume", run, "--iterations", 3, "--log-every", 1, "--checkpoint-every", 1)
    shutil.rmtree(run / "checkpoints")
    metrics = (run / "metrics.jsonl").read_text()
    assert "metrics.jsonl has 3 iterations" in refused(capsys, "--resume", run, "--iterations", 4)
    assert (run / "metrics.jsonl").read_text() == metrics
    (run / "metrics.jsonl").unlink()
    train("--resume", run, "--iterations", 1)
    assert iterations(run) == [1]


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(run):
    train("--resume", run, "--iterations", 3, "--log-every", 1, "--checkpoint-every", 100)
    shutil.rmtree(run / "checkpoints")
    train("--resume", run, "--iterations", 1)
    assert iterations(run) == [1]


@pytest.mark.parametrize("inside", ["checkpoints", "checkpoints/00000002", "checkpoints/00000002/model.safetensors"])
def test_a_part_of_a_run_is_told_from_what_is_none(inside, run):
    with pytest.raises(UserError, match=rf"{inside} is not a run: it lies in {run}, name that"):
        Run.open(run / inside)


def test_a_run_that_is_damaged_is_not_called_none(run):
    (run / "run.json").write_text("")
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        Run.open(run)


@pytest.mark.parametrize("there", [None, "notes.txt", "checkpoints"])
def test_settings_that_cannot_be_leave_no_run(there, store, tmp_path, capsys):
    (tmp_path / "tiny.json").write_text(to_json(TINY))
    out = tmp_path / "run"
    if there:
        (out / there).mkdir(parents=True)
    refusal = refused(capsys, store.path, "--out", out, "--config", tmp_path / "tiny.json", "--batch-size", 10_000)
    assert "10000" in refusal.replace(",", "")
    assert ([path.name for path in out.iterdir()] if out.exists() else None) == ([there] if there else None)


def test_a_run_that_has_begun_is_not_withdrawn(run):
    before = sorted(run.iterdir())
    Run.open(run).withdraw()
    assert sorted(run.iterdir()) == before


def test_a_command_to_copy_takes_a_name_with_spaces_for_one_word(run, store, tmp_path):
    named = run.rename(tmp_path / "my run")
    store.path.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=re.escape(f"--resume '{named}' ")):
        Run.open(named).open_store()
