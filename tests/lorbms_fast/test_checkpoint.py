"""Checkpoints: which are kept, what is done about damaged ones, and which are refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lorbms_fast import checkpoint
from lorbms_fast.config import TrainConfig
from lorbms_fast.differences import differences
from lorbms_fast.errors import UserError
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.run import Progress, Run, load_networks
from lorbms_fast.types import Networks
from tests.conftest import TINY


def fresh(seed: int = 0) -> tuple[Networks, Optimizers]:
    networks = build(TINY.model, "fast", seed)
    return networks, Optimizers.of(networks, TINY.optim)


def saved(folder: Path, errors: dict[int, float | None], config: TrainConfig = TINY) -> Run:
    """A run with a checkpoint for each iteration, of other networks each."""
    run = Run.create(folder / "run", config, folder / "store")
    for iteration, L_rec_hat in errors.items():
        run.save(Progress(iteration, iteration), *fresh(iteration), L_rec_hat)
    return run


def names(run: Run) -> list[int]:
    return [int(path.name) for path in run.checkpoints()]


def same(a: Networks, b: Networks) -> bool:
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())


def test_the_newest_and_the_best_are_kept(tmp_path):
    run = saved(tmp_path, {1: 0.5, 2: 0.2, 3: 0.4, 4: None, 5: 0.3}, replace(TINY, keep_checkpoints=2))
    assert names(run) == [2, 4, 5]
    assert run.best().name == "00000002"
    run.save(Progress(6, 6), *fresh(), 0.1)
    assert names(run) == [5, 6]


def test_everything_comes_back(tmp_path):
    networks, optimizers = fresh(1)
    with torch.no_grad():
        for optimizer in vars(optimizers).values():
            optimizer.t.fill_(7)
            for moments in optimizer.state.values():
                moments["exp_avg"].normal_()
                moments["exp_avg_sq"].uniform_()
    run = Run.create(tmp_path / "run", TINY, tmp_path / "store")
    path = run.save(Progress(3, 12), networks, optimizers, 0.25)
    others, theirs = fresh(2)
    assert run.restore(others, theirs) == Progress(3, 12)
    assert same(networks, others)
    again = run.folder / "again"
    again.mkdir()
    checkpoint.write(again, others, theirs, Progress(3, 12)._asdict())
    for name in (checkpoint.MODEL, checkpoint.OPTIMIZERS):
        assert (again / name).read_bytes() == (path / name).read_bytes()


@pytest.mark.parametrize("name", [checkpoint.MODEL, checkpoint.OPTIMIZERS, checkpoint.STATE])
@pytest.mark.parametrize("damage", ["one byte", "cut", "gone"])
def test_a_damaged_newest_is_named_and_the_one_before_is_used(name, damage, tmp_path, capsys):
    run = saved(tmp_path, {2: 0.2, 4: 0.1})
    path = run.latest() / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(content[:middle] + (bytes([content[middle] ^ 1]) + content[middle + 1 :]) * (damage != "cut"))
    networks, optimizers = fresh()
    assert run.restore(networks, optimizers) == Progress(2, 2)
    assert same(networks, fresh(2)[0])
    assert same(load_networks(run.folder), networks)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert str(path) in told
    assert "using the checkpoint before it" in told
    run.save(Progress(4, 4), networks, optimizers, 0.1)
    assert names(run) == [2, 4]
    assert run.latest().name == "00000004"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("reads", ["_checked", "load_weights"])
def test_one_that_is_dropped_while_it_is_read_is_not_called_damaged(reads, tmp_path, monkeypatch, capsys):
    run = saved(tmp_path, {2: 0.2}, replace(TINY, keep_checkpoints=1))
    read = getattr(checkpoint, reads)

    def dropped(*arguments: Any) -> Any:
        monkeypatch.setattr(checkpoint, reads, read)
        run.save(Progress(4, 4), *fresh(4), 0.1)  # by the process that trains
        return read(*arguments)

    monkeypatch.setattr(checkpoint, reads, dropped)
    assert same(load_networks(run.folder), fresh(4)[0])
    assert names(run) == [4]
    assert capsys.readouterr().err == ""


def test_nothing_but_damage_is_said_of_all(tmp_path):
    run = saved(tmp_path, {2: 0.2, 4: 0.1})
    for path in run.checkpoints():
        (path / checkpoint.MODEL).write_bytes(b"")
    with pytest.raises(UserError, match=r"is whole \(.*00000004.*; .*00000002/model\.safetensors.*\): copy one back"):
        run.latest()


def test_a_damaged_later_one_does_not_push_out_the_new(tmp_path):
    run = saved(tmp_path, {2: None, 4: None}, replace(TINY, keep_checkpoints=1))
    (run.latest() / checkpoint.STATE).unlink()
    run.save(Progress(3, 3), *fresh())
    assert names(run) == [3]
    assert [path.name for path in (run.folder / "checkpoints").iterdir() if "aside" in path.name] == ["00000004.aside"]


def test_another_version_is_refused_field_by_field(tmp_path):
    run = saved(tmp_path, {2: 0.2})
    path = run.latest() / checkpoint.STATE
    path.write_text(json.dumps({"iteration": 2, "batches": 2}))  # as version 1 had it
    said = r"state\.json is of another version: format is absent, not lorbms-fast checkpoint; version is absent, not 3;"
    with pytest.raises(UserError, match=said):
        load_networks(run.folder)
    facts = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(facts | {"version": 1}))
    with pytest.raises(UserError, match=r"run\.json is of another version: version is 1, not 2; go on with"):
        Run.open(run.folder)


def test_another_model_is_refused_field_by_field(tmp_path):
    run = saved(tmp_path, {2: 0.2})
    other = replace(TINY.model, chunk=5, layers=(1, 1, 2, 1, 1), decoder="transposed-decoder")
    with pytest.raises(UserError) as refused:
        replace(run, config=replace(TINY, model=other)).restore(*fresh())
    assert str(refused.value).endswith(
        "belongs to another model: model.decoder is thesis, not transposed-decoder; "
        "model.layers is [1, 1, 2, 1, 2], not [1, 1, 2, 1, 1]; model.chunk is 4, not 5"
    )


def test_settings_that_came_after_a_checkpoint_have_their_defaults(tmp_path):
    run = saved(tmp_path, {2: 0.2})
    facts = {name: value for name, value in checkpoint.facts_of(run.latest()).items() if name != "sha256"}
    del facts["model"]["initial_values"]
    checkpoint.seal(run.latest(), facts)
    assert same(load_networks(run.folder), fresh(2)[0])
    assert run.restore(*fresh()) == Progress(2, 2)
    other = replace(run, config=replace(TINY, model=replace(TINY.model, initial_values="he")))
    with pytest.raises(UserError, match=r"another model: model\.initial_values is thesis, not he$"):
        other.latest()


def test_tensors_that_do_not_fit_are_named(tmp_path):
    run = saved(tmp_path, {2: 0.2})
    networks = build(replace(TINY.model, chunk=5), "fast")
    with pytest.raises(UserError, match=r"model\.safetensors belongs to another model: .* is \[.*\], not \[.*\]; "):
        checkpoint.load_weights(networks, run.latest() / checkpoint.MODEL)


def test_loading_runs_no_code(tmp_path):
    """A pickle under a checkpoint's name is damage, even under a checksum that fits it."""
    run = saved(tmp_path, {2: 0.2})
    path = run.latest()
    torch.save({"enc": print}, path / checkpoint.MODEL)
    checkpoint.seal(path, {name: value for name, value in checkpoint.facts_of(path).items() if name != "sha256"})
    with pytest.raises(UserError, match=r"model\.safetensors is missing or damaged"):
        load_networks(run.folder)


def test_what_killed_writers_left_is_removed(tmp_path):
    run = saved(tmp_path, {2: 0.2})
    left = run.folder / "checkpoints" / ".00000004.99999999.partial"
    left.mkdir()
    (left / checkpoint.MODEL).write_bytes(b"half")
    foreign = run.folder / ".notes.partial"
    foreign.write_text("nobody's")
    run.tidy()
    assert not left.exists()
    assert foreign.exists()
    assert names(run) == [2]


def test_differences_are_told_one_by_one():
    a = {"x": 1, "both": {"same": (1, 2), "other": "a"}, "only": None}
    b = {"x": 2, "both": {"same": [1, 2], "other": "b"}, "new": True}
    assert list(differences(a, b)) == [
        "x is 1, not 2",
        "both.other is a, not b",
        "only is None, not absent",
        "new is absent, not True",
    ]
