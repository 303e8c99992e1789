"""Every variant trains, comes back from its checkpoint, and is what its name says."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lorbms_fast.checkpoint import Run, load_networks
from lorbms_fast.cli import main
from lorbms_fast.commands.train import batch_source
from lorbms_fast.config import TrainConfig
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine.forms import FORMS, form_of
from lorbms_fast.engine.optimizers import Optimizers
from lorbms_fast.engine.trainer import Training
from lorbms_fast.models import build
from lorbms_fast.models.variants import with_variant
from lorbms_fast.variants import VARIANTS
from tests.conftest import TINY

SHORT = replace(TINY, batch_size=4, iterations=3, log_every=1, sheet_every=3, checkpoint_every=3)
DIFFERENT = [name for name in VARIANTS if name != "thesis"]


@pytest.fixture
def store_for(store: ImageStore, photographs: Path, tmp_path: Path):
    """The store that a config needs; those of 96 and 128 px have the neighbours of the one of 64."""

    def make(config: TrainConfig) -> ImageStore:
        if (size := config.model.image_size) == 64:
            return store
        path = tmp_path / f"store{size}"
        prepare_store(path, photographs, of_folder(photographs), Recipe(image_size=size))
        (path / "neighbours.parquet").write_bytes((store.path / "neighbours.parquet").read_bytes())
        return ImageStore.open(path)

    return make


@pytest.mark.parametrize("name", DIFFERENT)
def test_every_variant_trains_and_comes_back(name, store_for, tmp_path):
    config = with_variant(SHORT, name)
    assert config != SHORT
    store = store_for(config)
    run = Run.create(tmp_path / "run", config, store.path)
    Training.of(run, batch_source(config, store)).train()
    entries = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [entry["iteration"] for entry in entries] == [1, 2, 3]
    assert all(np.isfinite(list(entry.values())).all() for entry in entries)
    assert Run.open(run.folder).config == config
    networks = load_networks(run.folder)
    fresh = build(config.model, config.impl, config.seed).state_dict()
    moved = {
        part.split(".")[0] for part, tensor in networks.state_dict().items() if not torch.equal(tensor, fresh[part])
    }
    assert moved == {"enc", "dec", "dsc", "cls"}
    main(["render", str(run.folder), "--samples", "2"])
    assert (run.folder / "mixed_scenes.png").stat().st_size > 1000


@pytest.mark.parametrize("name", VARIANTS)
def test_reconstruction_is_learned(name, store_for):
    """On the same batch again and again; sixty updates of the generator at a high rate."""
    config = with_variant(SHORT, name)
    config = replace(config, optim=replace(config.optim, generator_lr=5e-3))
    batch = batch_source(config, store_for(config)).batch(0)
    form, networks = form_of(config.model, config.impl), build(config.model, config.impl).train()
    optimizers = Optimizers.of(networks, config.optim)
    losses = []
    for _ in range(30):
        report = form.iterate(networks, optimizers, [batch] * 4, config.loss)
        form.advance_u(networks, config.optim)
        losses.append(report.L_rec_hat.item())
    assert np.isfinite(losses).all()
    assert np.mean(losses[-3:]) < 0.95 * np.mean(losses[:3]), losses


def test_the_general_form_is_the_thesis_where_both_apply(store):
    """One step of each in float64: the same losses, and the same parameters afterwards."""
    batch = batch_source(SHORT, store).batch(0)
    batch = batch._replace(I_ref=batch.I_ref.double(), I_q=batch.I_q.double())
    general = form_of(replace(SHORT.model, image_size=96), "torch")
    assert general not in FORMS.values()
    results = []
    for form in (FORMS["torch"], general):
        networks = build(SHORT.model, "torch").double().train()
        report = form.iterate(networks, Optimizers.of(networks, SHORT.optim), [batch] * 4, SHORT.loss)
        form.advance_u(networks, SHORT.optim)
        results.append((report.numbers(), networks.state_dict()))
    (numbers, state), (expected_numbers, expected) = results
    assert numbers == pytest.approx(expected_numbers, rel=1e-6)
    for name, tensor in expected.items():
        if not (name.startswith("enc.") and name.endswith(".bias")):  # before a norm: moved by rounding alone
            torch.testing.assert_close(state[name], tensor, rtol=1e-7, atol=1e-9)


def test_the_command_trains_a_variant(store, tmp_path, capsys):
    run = tmp_path / "run"
    (tmp_path / "tiny.json").write_text(json.dumps({"model": {"chunk": 4, "growth": 2, "stem": 3}}))
    options = [
        "--preset",
        "demo",
        "--config",
        str(tmp_path / "tiny.json"),
        "--variant",
        "attention",
        "--iterations",
        "1",
    ]
    main(["train", str(store.path), "--out", str(run), *options])
    config = Run.open(run).config
    assert (config.model.decoder, config.model.discriminator) == ("attention-decoder", "attention-discriminator")
    main(["train", "--resume", str(run), "--iterations", "2"])
    for mistake, named in (
        (["--resume", str(run), "--variant", "transposed-decoder"], "another model"),
        ([str(store.path), "--out", str(tmp_path / "x"), "--variant", "attentoin"], "no variant 'attentoin'"),
        ([str(store.path), "--out", str(tmp_path / "x"), "--model.decoder", "hinge"], "'hinge' has no decoder"),
        ([str(store.path), "--out", str(tmp_path / "x"), "--model.decoder", "deocder"], "deocder"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["train", *mistake])
        assert exit_.value.code == 2
        shown = capsys.readouterr().err
        assert named in shown
        assert shown.count("\n") == 1
