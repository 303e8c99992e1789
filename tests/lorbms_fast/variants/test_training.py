"""Every variant trains, comes back from its checkpoint, and is what its name says."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from lorbms_fast.cli import main
from lorbms_fast.dataloader.neighbour_table import NeighbourTable
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import ImageStore
from lorbms_fast.engine.implementations import IMPLS, implementation
from lorbms_fast.engine.iteration import iterate
from lorbms_fast.engine.tiled import JointlyClassified, Tiled
from lorbms_fast.engine.trainer import Training
from lorbms_fast.models import build
from lorbms_fast.models.variants import with_variant
from lorbms_fast.optimizers import Optimizers
from lorbms_fast.run import Run, load_networks
from lorbms_fast.training.setup import batch_source
from lorbms_fast.variants import VARIANTS
from tests.conftest import TINY

SHORT = replace(
    TINY,
    batch_size=4,
    iterations=4,
    sheet_every=4,
    checkpoint_every=4,
    optim=replace(TINY.optim, generator_lr=2e-2),
)
DIFFERENT = [name for name in VARIANTS if name != "thesis"]


@pytest.fixture(scope="session")
def bright_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], ImageStore]:
    """Stores of bright photographs, by image size: to reconstruct them, learn their colour first."""
    folder = tmp_path_factory.mktemp("bright")
    draw = np.random.Generator(np.random.Philox(5))
    for i in range(12):
        coarse = Image.fromarray(draw.integers(180, 256, (3, 3, 3), dtype=np.uint8))
        coarse.resize((160, 130), Image.Resampling.BICUBIC).save(folder / f"photo{i:02d}.png")

    @cache
    def store(size: int) -> ImageStore:
        path = tmp_path_factory.mktemp("stores") / str(size)
        prepare_store(path, folder, of_folder(folder), Recipe(), image_size=size)
        made = ImageStore.open(path)
        others = [[draw.permutation(np.delete(np.arange(12), i))[:10] for _ in range(4)] for i in range(12)]
        distances = np.sort(draw.uniform(1, 100, (12, 4, 10)).astype(np.float32))
        NeighbourTable(np.array(others), distances, 50.0, "random").save(made)
        return made

    return store


@pytest.mark.parametrize("name", DIFFERENT)
def test_every_variant_trains_and_comes_back(name, bright_store, tmp_path):
    config = with_variant(SHORT, name)
    assert config != SHORT
    store = bright_store(config.model.image_size)
    run = Run.create(tmp_path / "run", config, store.path)
    Training.of(run, batch_source(config, store)).train()
    entries = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(list(entry.values())).all() for entry in entries)
    assert entries[-1]["L_rec_hat"] < 0.9 * entries[0]["L_rec_hat"]
    assert Run.open(run.folder).config == config
    trained = load_networks(run.folder).state_dict()
    fresh = build(config.model, config.impl, config.seed).state_dict()
    moved = {name.split(".")[0] for name, tensor in trained.items() if not torch.equal(tensor, fresh[name])}
    assert moved == {"enc", "dec", "dsc", "cls"}
    if name in ("nine-tiles", "hu"):  # whose sheets are others
        main(["render", str(run.folder), "--samples", "2"])
        assert (run.folder / "mixed_scenes.png").stat().st_size > 1000


@pytest.mark.parametrize("name", ["global-local-discriminator", "batch-tiles"])
def test_random_patches_and_candidates_by_codes_resume_bit_for_bit(name, bright_store, tmp_path):
    config = with_variant(SHORT, name)
    store = bright_store(64)
    whole = Run.create(tmp_path / "whole", config, store.path)
    Training.of(whole, batch_source(config, store)).train()
    parts = Run.create(tmp_path / "parts", replace(config, iterations=2), store.path)
    Training.of(parts, batch_source(config, store)).train()
    parts = replace(parts, config=config)
    resumed = Training.of(parts, batch_source(config, store))
    resumed.train(parts.restore(resumed.networks, resumed.optimizers))
    expected, state = (load_networks(run.folder).state_dict() for run in (whole, parts))
    assert all(torch.equal(tensor, expected[key]) for key, tensor in state.items())
    if name == "global-local-discriminator":
        begun = build(config.model, config.impl, config.seed).state_dict()["dsc.drawn"]
        # An iteration's two generator updates see 4 mixed images each, the discriminator's 4 real and 4 mixed ones.
        assert state["dsc.drawn"] == begun + 4 * 16


@pytest.mark.parametrize("impl", IMPLS)
def test_what_a_system_is_made_of_chooses_its_iteration(impl):
    chosen = {name: implementation(with_variant(SHORT, name).model, impl) for name in VARIANTS}
    joint = {name for name, found in chosen.items() if isinstance(found, JointlyClassified)}
    assert joint == {"six-image-classifier", "nine-tiles", "hu"}
    assert {name for name, found in chosen.items() if isinstance(found, Tiled)} - joint == {"size-96", "size-128"}
    assert all(found is IMPLS[impl] for found in chosen.values() if not isinstance(found, Tiled))


def test_the_general_form_is_the_thesis_where_both_apply(store):
    """One step of each in float64: the same losses, and the same parameters afterwards."""
    batch = batch_source(SHORT, store).batch(0)
    batch = batch._replace(I_ref=batch.I_ref.double(), I_q=batch.I_q.double())
    general = implementation(replace(SHORT.model, image_size=96), "fast")
    assert general not in IMPLS.values()
    results = []
    for impl in (IMPLS["fast"], general):
        networks = build(SHORT.model, "fast").double().train()
        optimizers = Optimizers.of(networks, SHORT.optim)
        report = iterate(impl, networks, optimizers, [batch], SHORT.loss, SHORT.optim)
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
    capsys.readouterr()
    for mistake, named in (
        (["--resume", str(run), "--variant", "transposed-decoder"], "would begin another run"),
        (["--resume", str(run), "--model.decoder", "transposed-decoder"], "another model"),
        ([str(store.path), "--out", str(tmp_path / "x"), "--variant", "attentoin"], "no variant 'attentoin'"),
        ([str(store.path), "--out", str(tmp_path / "x"), "--model.decoder", "hinge"], "'hinge' has no decoder"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["train", *mistake])
        assert exit_.value.code == 2
        shown = capsys.readouterr().err.splitlines()[-1]
        assert shown.startswith("lorbms-fast: ")
        assert named in shown
