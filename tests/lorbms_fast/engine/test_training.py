"""Runs: what they write, how they stop and go on, and what they refuse."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lorbms_fast import checkpoint
from lorbms_fast.atomic_io import exclusive_lock
from lorbms_fast.cli import main
from lorbms_fast.config import to_json
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.engine.distributed import World
from lorbms_fast.engine.signals import Interrupted
from lorbms_fast.engine.trainer import Training
from lorbms_fast.errors import UserError
from lorbms_fast.run import Run
from lorbms_fast.training.session import run_training
from lorbms_fast.training.setup import batch_source
from lorbms_fast.types import Batch, Networks
from tests.conftest import TINY


def entries(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def size(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


def test_a_run_leaves_everything_to_look_at(run):
    assert [entry["iteration"] for entry in entries(run)] == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(list(entry.values())).all() for entry in entries(run))
    assert [path.name for path in Run.open(run).checkpoints()] == ["00000002", "00000004", "00000006"]
    assert sorted(path.name for path in (run / "sheets").iterdir()) == ["00000003.png", "00000006.png"]
    assert size(run / "curves.png")[0] > 500
    assert list((run / "tensorboard").iterdir())


@pytest.mark.parametrize(("first_minute", "kept"), [(60, ["00000002", "00000003"]), (0, ["00000001"])])
def test_a_run_that_nobody_reads_any_more_is_kept(first_minute, kept, store, tmp_path, monkeypatch):
    def closed(message: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("lorbms_fast.engine.log.FIRST_MINUTE", first_minute)
    monkeypatch.setattr("lorbms_fast.progress.tqdm.write", closed)
    with pytest.raises(BrokenPipeError):
        run_training(Run.create(tmp_path / "run", TINY, store.path), store)
    assert [path.name for path in Run.open(tmp_path / "run").checkpoints()] == kept


def test_a_run_says_how_long_it_takes_and_what_it_learned(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lorbms_fast.engine.log.FIRST_MINUTE", 0)
    run_training(Run.create(tmp_path / "run", TINY, store.path), store)
    told = capsys.readouterr().out
    assert len(re.findall("iteration 1: the other 5 will take (?:about|less than) ", told)) == 1
    for line in ("iteration 3: PSNR of I_hat", "iteration 6: PSNR of I_hat"):
        assert told.count(line) == 1
    assert re.search(r"\(16x16 blur .*, one color [\d.]+, one color for all [\d.]+\)", told)
    assert "against the best constant answer" in told
    run_training(Run.create(tmp_path / "one", replace(TINY, iterations=1), store.path), store)
    assert "will take" not in capsys.readouterr().out  # nothing is left


@pytest.mark.parametrize(("one_color", "warnings"), [(99.0, 1), (-99.0, 0)])
def test_a_run_that_learned_less_than_one_color_warns_at_its_end(
    one_color, warnings, store, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("lorbms_fast.engine.samples.blur_levels", lambda images: {"one color": one_color})
    run_training(Run.create(tmp_path / "run", replace(TINY, iterations=2, sheet_every=1), store.path), store)
    told = capsys.readouterr().out
    assert told.count("worse than one color each (99.0 dB): go on with more --iterations") == warnings


def test_a_run_that_comes_no_nearer_than_one_color_warns_on_the_way(store, tmp_path, capsys, monkeypatch):
    levels = iter([9.5, 9.0, 8.0, 8.5, 10.5, 8.5])  # the second is a few images' noise, nearer to one color each
    monkeypatch.setattr(
        "lorbms_fast.engine.trainer.reconstruction_levels",
        lambda *shown: {"PSNR of I_hat": next(levels), "one color": 10.0, "one color for all": 7.5},
    )
    run_training(Run.create(tmp_path / "run", replace(TINY, iterations=6, sheet_every=1), store.path), store)
    warnings = re.findall("warning: .*(?= dB are worse| dB, worse)", capsys.readouterr().out)
    assert warnings == ["warning: reconstructions of 8.0", "warning: it ends with reconstructions of 8.5"]


def test_interrupting_saves_first(store, tmp_path, monkeypatch):
    config = replace(TINY, iterations=100_000, checkpoint_every=100_000)
    run = Run.create(tmp_path / "run", config, store.path)
    assemble = NeighbourBatches.batch

    def terminated_in_the_fourth_iteration(source: NeighbourBatches, number: int) -> Batch:
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return assemble(source, number)

    monkeypatch.setattr(NeighbourBatches, "batch", terminated_in_the_fourth_iteration)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stop:
        Training.of(run, batch_source(config, store)).train()
    assert stop.value.iteration == 4
    assert [path.name for path in run.checkpoints()] == ["00000004"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_interrupting_a_measurement_does_not_wait_for_it(store, tmp_path):
    config = replace(TINY, iterations=100, checkpoint_every=100, sheet_every=100)
    run = Run.create(tmp_path / "run", config, store.path)
    came_back = []

    def measure(networks: Networks, iteration: int) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        came_back.append(iteration)
        return {}

    with pytest.raises(Interrupted) as stop:
        Training.of(run, batch_source(config, store)).train(measure=measure)
    assert stop.value.iteration == 8  # the end of an epoch of 24 images
    assert came_back == []
    assert [path.name for path in run.checkpoints()] == ["00000008"]


@pytest.mark.parametrize("in_it", [True, False], ids=["in the measurement", "in the iteration before"])
def test_a_measurement_that_a_stop_left_out_is_made_by_the_resumed_run(in_it, store, tmp_path, monkeypatch):
    config = replace(TINY, iterations=17, checkpoint_every=100, sheet_every=100)  # passes end after 8 and 16
    run, came_back, assemble = Run.create(tmp_path / "run", config, store.path), [], NeighbourBatches.batch

    def measure(networks: Networks, iteration: int) -> dict[str, float]:
        if in_it and not came_back:
            came_back.append("stopped")
            os.kill(os.getpid(), signal.SIGTERM)
        came_back.append(iteration)
        return {}

    def terminated_in_the_eighth(source: NeighbourBatches, number: int) -> Batch:
        if number == 7:
            os.kill(os.getpid(), signal.SIGTERM)
        return assemble(source, number)

    if not in_it:
        monkeypatch.setattr(NeighbourBatches, "batch", terminated_in_the_eighth)
    with pytest.raises(Interrupted, match="8"):
        Training.of(run, batch_source(config, store)).train(measure=measure)
    monkeypatch.undo()
    again = Training.of(run, batch_source(config, store))
    again.train(run.restore(again.networks, again.optimizers), measure=measure)
    assert came_back == ["stopped", 8, 16][not in_it :]


@pytest.mark.parametrize("noted", [True, False])
def test_a_larger_batch_takes_no_checkpoint_behind_a_pass_for_its_end(noted, store, tmp_path):
    config = replace(TINY, iterations=9, checkpoint_every=1, sheet_every=100)
    run, measured = Run.create(tmp_path / "run", config, store.path), []
    Training.of(run, batch_source(config, store)).train()
    if not noted:  # as before 1 December 2026
        shutil.rmtree(run.latest())
        state = run.latest()
        facts = checkpoint.facts_of(state)
        assert facts.pop("ends_pass")
        checkpoint.seal(state, facts)
    config = replace(config, iterations=10, batch_size=18)
    again = Training.of(replace(run, config=config), batch_source(config, store))
    start = run.restore(again.networks, again.optimizers)
    assert not start.ends_pass
    again.train(start, measure=lambda networks, iteration: measured.append(iteration) or {})
    assert measured == ([10] if noted else [9, 10])  # whose ends it passes itself


ONE_PASS = replace(TINY, iterations=1, batch_size=24)
"""An iteration that is the last and ends a pass, after which scenes are measured."""


def test_images_gone_at_the_last_iteration_leave_a_measurement_that_can_be_made(store, tmp_path, monkeypatch):
    monkeypatch.setattr(NeighbourBatches, "gone", lambda source: Path("images-00000.npy"))
    run = Run.create(tmp_path / "run", ONE_PASS, store.path)
    with pytest.raises(UserError, match=f"put it back, then  lorbms-fast evaluate generation {run.folder}"):
        Training.of(run, batch_source(ONE_PASS, store)).train(measure=lambda networks, iteration: {})


def test_processes_end_alike_where_a_stop_leaves_the_measurement_out(store, tmp_path, monkeypatch):
    """Only the first measures; the others know by it that something is left."""
    monkeypatch.setattr(World, "any", lambda world, flag: True)
    run = Run.create(tmp_path / "run", ONE_PASS, store.path)
    with pytest.raises(Interrupted):
        Training.of(run, batch_source(ONE_PASS, store), World(rank=1)).train()


def test_only_the_newest_checkpoints_stay(store, tmp_path):
    config = replace(TINY, checkpoint_every=1, keep_checkpoints=2, log_every=10, sheet_every=10)
    run_training(Run.create(tmp_path / "run", config, store.path), store)
    assert [path.name for path in Run.open(tmp_path / "run").checkpoints()] == ["00000005", "00000006"]


def test_what_is_named_at_the_end_is_there(store, tmp_path, capsys):
    config = replace(TINY, iterations=1, log_every=10)
    run_training(Run.create(tmp_path / "run", config, store.path), store)
    named = capsys.readouterr().out.splitlines()[-1].removeprefix("done: ").split(", ")
    assert [Path(path).name for path in named] == ["00000001", "sheets"]  # too short for curves


def test_a_later_process_does_not_wait_for_the_firsts_checkpoint(store, tmp_path, monkeypatch, capsys):
    class Second(World):
        def any(self, flag: bool) -> bool:
            return flag

    monkeypatch.setattr(Training, "train", lambda *_: None)  # the first process's checkpoint is not there yet
    run = Run.create(tmp_path / "run", TINY, store.path)
    run_training(run, store, Second(rank=1, size=2))
    assert not run.checkpoints()
    assert capsys.readouterr().out == ""


def test_the_reference_trains_to_the_same_losses(store, run, tmp_path):
    run_training(Run.create(tmp_path / "other", replace(TINY, impl="reference"), store.path), store)
    for name in ("L_rec_hat", "L_adv", "L_cls", "L_D"):
        assert [e[name] for e in entries(tmp_path / "other")] == pytest.approx(
            [e[name] for e in entries(run)], rel=0.02
        )


@pytest.mark.parametrize(
    "change",
    [
        {"precision": "bfloat16"},
        {"precision": "float16", "optim": replace(TINY.optim, batches="fresh"), "graphs": "on", "images": "resident"},
        {"mixing": replace(TINY.mixing, candidates="shared-rank", tau=3.0)},
        {"batch_norm": "synchronized"},
        {"optim": replace(TINY.optim, batches="fresh", sn_gradient="through", sn_power_iterations=(9, 2))},
    ],
)
def test_options_train(change, store, tmp_path):
    config = replace(TINY, iterations=2, checkpoint_every=2, sheet_every=2, **change)
    run_training(Run.create(tmp_path / "run", config, store.path), store)
    assert all(np.isfinite(list(entry.values())).all() for entry in entries(tmp_path / "run"))


def test_iterations_on_fixed_memory_train_to_the_same_losses(store, run, tmp_path):
    config = replace(TINY, graphs="on", images="resident")
    run_training(Run.create(tmp_path / "fixed", config, store.path), store)
    for entry, expected in zip(entries(tmp_path / "fixed"), entries(run), strict=True):
        assert entry == pytest.approx(expected, rel=1e-3)
    with pytest.raises(UserError, match="--graphs on needs --images resident"):
        run_training(Run.create(tmp_path / "mapped", replace(config, images="mapped"), store.path), store)


def train(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_:
        main(["train", *map(str, arguments)])
    return exit_.value.code or 0


def test_a_mistake_before_the_first_iteration_can_be_mended_in_place(store, tmp_path, capsys):
    (tmp_path / "tiny.json").write_text(to_json(TINY))
    asked = (store.path, "--out", tmp_path / "run", "--config", tmp_path / "tiny.json", "--iterations", 1)
    assert train(*asked, "--variant", "hu") == 2
    assert "use an even one" in capsys.readouterr().err
    with exclusive_lock(tmp_path / "run", "is training it"):
        assert train(*asked) == 2
    assert "another process is training" in capsys.readouterr().err
    main(["train", *map(str, asked)])
    assert Run.open(tmp_path / "run").config == replace(TINY, iterations=1)


def test_the_command_takes_settings_from_everywhere(store, tmp_path, capsys):
    (tmp_path / "tiny.json").write_text(to_json(TINY))
    run = tmp_path / "run"
    main(["train", str(store.path), "--out", str(run), "--config", str(tmp_path / "tiny.json"), "--iterations", "2"])
    assert Run.open(run).config == replace(TINY, iterations=2)
    main(["train", "--resume", str(run), "--iterations", "4"])
    assert [entry["iteration"] for entry in entries(run)] == [1, 2, 3, 4]
    assert train("--resume", run, "--model.chunk", 5) == 2
    assert "another model" in capsys.readouterr().err
    assert train(store.path, "--out", run) == 2
    assert "is a run already" in capsys.readouterr().err
    assert train("--resume", tmp_path) == 2
    assert "is not a run" in capsys.readouterr().err
    assert train(tmp_path, "--out", tmp_path / "new", "--preset", "demo") == 2
    assert "is not an image store" in capsys.readouterr().err
    assert train(run, "--out", tmp_path / "new", "--preset", "demo") == 2
    assert "prepare FOLDER --out STORE" in capsys.readouterr().err, "not over the run"


def test_a_store_is_no_runs_folder_and_stays_as_it_is(store, capsys):
    before = sorted(store.path.iterdir())
    assert train(store.path, "--out", store.path, "--preset", "demo") == 2
    assert "is an image store: choose another --out" in capsys.readouterr().err
    assert sorted(store.path.iterdir()) == before


def test_rendering_a_run(run, photographs, capsys):
    main(["render", str(run), "--samples", "3"])
    assert size(run / "mixed_scenes.png")[1] > 3 * 128
    main(["render", str(run), "--samples", "2", "--interpolate"])
    main(["render", str(run), "--samples", "2", "--film"])
    assert size(run / "film.png")[0] > 4 * 132, "the aim and three checkpoints"
    older = run / "checkpoints" / "00000002" / "model.safetensors"
    older.write_bytes(older.read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit):
        main(["render", str(run), "--samples", "2", "--film"])
    assert f"{older} is damaged" in capsys.readouterr().err
    assert size(run / "interpolation.png")[0] > 11 * 128
    pictures = [str(photographs / f"photo0{i}.jpg") for i in (1, 2)]
    main(["transfer", str(run), "--object", pictures[0], "--scene", pictures[1], "--mask", "0110"])
    assert size(run / "transfer.png")[0] > 4 * 192
    with pytest.raises(SystemExit) as exit_:
        main(["transfer", str(run), "--object", pictures[0], "--scene", pictures[1], "--mask", "0021"])
    assert exit_.value.code == 2
    assert "'0021'" in capsys.readouterr().err
