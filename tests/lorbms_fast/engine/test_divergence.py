"""Losses and gradients that are not finite: when they are seen, what is written down, and what is done."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lorbms_fast import checkpoint
from lorbms_fast.config import TrainConfig
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine.async_metrics import HostCopy
from lorbms_fast.engine.distributed import ALONE, World
from lorbms_fast.engine.divergence import NonFinite, NonFiniteMonitor
from lorbms_fast.engine.log import read_lines
from lorbms_fast.engine.trainer import Training
from lorbms_fast.errors import UserError
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers, update
from lorbms_fast.run import BEGINNING, Progress, Run
from lorbms_fast.training.setup import batch_source
from lorbms_fast.types import Batch
from tests.conftest import TINY

QUIET = replace(TINY, sheet_every=100, iterations=5)


def training(folder: Path, store: ImageStore, config: TrainConfig) -> Training:
    return Training.of(Run.create(folder, config, store.path), batch_source(config, store))


def finite(t: Training) -> bool:
    moments = [m for o in vars(t.optimizers).values() for state in o.state.values() for m in state.values()]
    return all(tensor.isfinite().all() for tensor in [*t.networks.state_dict().values(), *moments])


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of batches whose images are not finite, each time or (negative) once."""
    numbers: list[int] = []
    make = NeighbourBatches._make

    def spoiling(source: NeighbourBatches, number: int) -> Batch:
        batch = make(source, number)
        if number in numbers or -number in numbers:
            batch.I_ref[1, 0, 5, 7] = torch.inf
            if -number in numbers:
                numbers.remove(-number)
        return batch

    monkeypatch.setattr(NeighbourBatches, "_make", spoiling)
    return numbers


def test_stopping_at_the_iteration_itself(spoilt, store, tmp_path):
    spoilt.append(2)
    t = training(tmp_path / "run", store, replace(QUIET, log_every=100))
    with pytest.raises(UserError) as stopped:
        t.train()
    place = tmp_path / "run" / "divergence" / "00000003"
    said = str(stopped.value)
    assert said.startswith("iteration 3: the loss of the generator and the gradient of the generator and the loss of")
    assert str(place) in said
    assert "--on-divergence rollback" in said
    assert all(parameter.isfinite().all() for parameter in t.networks.parameters())
    facts = json.loads((place / "divergence.json").read_text())
    assert facts["begin_again_from"] == "00000002"
    (flaw,) = facts["iterations"]
    rows = t.source.draw(2).rows.tolist()
    (images,) = flaw["images"]
    assert images["batch"] == 2
    assert images["reference"] == [store.ids[row] for row in rows[0]]
    assert images["candidates"] == [[store.ids[row] for row in kind] for kind in rows[1:]]
    assert checkpoint.check(place)["iteration"] == 3
    assert [path.name for path in t.run.checkpoints()] == ["00000002"]


@pytest.mark.parametrize("wrong", [True, False])
def test_a_state_is_looked_at_before_it_is_kept_for_a_fault(wrong, spoilt, store, tmp_path, monkeypatch):
    """On a GPU, which is not asked after every iteration."""

    def fail(*_: object) -> None:
        raise OSError("nobody hears it")

    monkeypatch.setattr(Training, "_looking_is_free", False)
    monkeypatch.setattr(Training, "_look", fail)
    spoilt += [0] if wrong else []
    t = training(tmp_path / "run", store, replace(QUIET, log_every=100, checkpoint_every=100))
    with pytest.raises(UserError if wrong else OSError, match="not finite" if wrong else "nobody"):
        t.train()
    assert [path.name for path in t.run.checkpoints()] == ([] if wrong else ["00000001"])


def test_going_back_learns_more_slowly(spoilt, store, tmp_path, capsys):
    undisturbed = training(tmp_path / "undisturbed", store, QUIET)
    undisturbed.train()
    spoilt.append(-3)
    t = training(tmp_path / "run", store, replace(QUIET, on_divergence="rollback"))
    t.train()
    assert "back to iteration 2, learning rates times 0.5" in capsys.readouterr().out
    found, expected = (
        [json.loads(line) for line in read_lines(run.run.folder / "metrics.jsonl")] for run in (t, undisturbed)
    )
    assert [entry["iteration"] for entry in found] == [1, 2, 3, 4, 5]
    assert found[:2] == expected[:2]
    assert found[2]["psnr"] != expected[2]["psnr"]  # the second generator update followed a shorter first
    assert checkpoint.facts_of(t.run.latest())["rollbacks"] == 1


def test_going_back_to_the_beginning_and_not_for_ever(spoilt, store, tmp_path):
    spoilt.append(1)
    config = replace(QUIET, on_divergence="rollback", checkpoint_every=100)
    t = training(tmp_path / "run", store, config)
    with pytest.raises(UserError, match="though the run went back 3 times already"):
        t.train()
    assert [path.name for path in t.run.checkpoints()] == ["00000000"]
    # Whoever resumes it has not forgotten.
    t = Training.of(t.run, t.source)
    start = t.run.restore(t.networks, t.optimizers)
    assert start == Progress(0, 0, 3)
    spoilt.clear()
    t.train(start)
    assert t.optimizers.generator.factor == 0.125
    assert finite(t)


def test_rates_are_lower_by_the_factor():
    networks = build(TINY.model, "fast")
    moved = []
    for factor in (1.0, 0.5):
        optimizers = Optimizers.of(networks, TINY.optim)
        optimizers.discriminator.factor.fill_(factor)
        before = networks.dsc.state_dict()
        before = {name: tensor.clone() for name, tensor in before.items()}
        for parameter in networks.dsc.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizers.discriminator.step()
        moved.append(sum((tensor - before[name]).sum() for name, tensor in networks.dsc.state_dict().items()))
    assert moved[1] / moved[0] == pytest.approx(0.5, rel=1e-3)


def test_a_gradient_alone_is_enough():
    networks = build(TINY.model, "fast")
    optimizers = Optimizers.of(networks, TINY.optim)
    weight = next(networks.cls.parameters())
    weight.register_hook(lambda gradient: gradient * torch.nan)
    before = {name: p.clone() for name, p in networks.cls.named_parameters()}
    update(optimizers.classifier, sum(p.square().sum() for p in networks.cls.parameters()))
    assert optimizers.classifier.flawed.tolist() == [0, 1]
    assert optimizers.classifier.t == 0
    assert all(torch.equal(p, before[name]) for name, p in networks.cls.named_parameters())
    watch = NonFiniteMonitor(optimizers, 3)
    watch.note(Progress(7, 7))
    assert watch.read(ALONE) == [NonFinite(Progress(7, 7), ["gradient of the classifier"])]


def test_overflows_that_a_scaler_is_there_for_do_not_count():
    networks = build(TINY.model, "fast")
    optimizers = Optimizers.of(networks, TINY.optim, "float16")
    update(optimizers.classifier, 1e34 * sum(p.square().sum() for p in networks.cls.parameters()))
    assert optimizers.classifier.t == 0
    assert optimizers.classifier.flawed.tolist() == [0, 0]
    assert optimizers.classifier.scaler.get_scale() < 65536


def test_late_readings_name_the_iterations():
    """As on a GPU, where notes are read at the log's entries only."""
    optimizers = Optimizers.of(build(TINY.model, "fast"), TINY.optim)
    watch = NonFiniteMonitor(optimizers, 4)
    found = []
    for iteration in range(12):
        if iteration in (1, 2, 7, 8, 9, 10, 11):
            optimizers.discriminator.flawed[iteration % 2].add_(1)
        watch.note(Progress(iteration, 3 * iteration))
        if iteration % 4 == 3:
            found.append([flaw.before.iteration for flaw in watch.read(ALONE)])
    assert found == [[1, 2], [7], [8, 9, 10, 11]]


def test_notes_on_their_way_are_waited_for_only_when_they_must(monkeypatch):
    optimizers = Optimizers.of(build(TINY.model, "fast"), TINY.optim)
    watch = NonFiniteMonitor(optimizers, 2)
    monkeypatch.setattr(HostCopy, "here", lambda reading: False)
    found = []
    for iteration in range(6):
        optimizers.discriminator.flawed[0].add_(iteration % 2)
        watch.note(Progress(iteration, iteration))
        if iteration % 2:
            found.append([flaw.before.iteration for flaw in watch.read(ALONE, left=1)])
    assert found == [[], [1], [3]]
    assert [flaw.before.iteration for flaw in watch.read(ALONE)] == [5]


def test_what_another_process_noted_counts(monkeypatch):
    optimizers = Optimizers.of(build(TINY.model, "fast"), TINY.optim)
    watch = NonFiniteMonitor(optimizers, 2)
    watch.note(BEGINNING)
    monkeypatch.setattr(World, "largest", lambda world, numbers: numbers + 1)
    (flaw,) = watch.read(World(0, 2))
    assert len(flaw.what) == 6
