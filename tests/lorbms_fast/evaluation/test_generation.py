"""Mixed scenes against real images."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lorbms_fast.cli import main
from lorbms_fast.config import EvaluationConfig
from lorbms_fast.dataloader.batches import NeighbourBatches
from lorbms_fast.dataloader.pixels import to_uint8_nhwc
from lorbms_fast.dataloader.prepare import prepare_store
from lorbms_fast.dataloader.recipes import Recipe
from lorbms_fast.dataloader.resize import area_resize
from lorbms_fast.dataloader.sources import of_folder
from lorbms_fast.dataloader.store import checksum
from lorbms_fast.engine.fast import Fast
from lorbms_fast.engine.trainer import Training
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation import generation
from lorbms_fast.evaluation import image_features as image_features_module
from lorbms_fast.evaluation.generation import (
    draw_generation_curves,
    generation_results,
    measure_generation,
    mixed_scenes,
)
from lorbms_fast.evaluation.image_features import extractor_features, image_features
from lorbms_fast.evaluation.inception import Inception
from lorbms_fast.evaluation.results import cached
from lorbms_fast.run import Run, load_networks
from lorbms_fast.similarity.features import load_extractor
from lorbms_fast.training.session import run_training
from lorbms_fast.training.setup import batch_source, scene_batches
from tests.conftest import TINY

CPU = torch.device("cpu")


@pytest.fixture
def source(run: Path, store):
    return batch_source(Run.open(run).config, store)


def test_one_scene_for_each_image(run, source, store, monkeypatch):
    drawn = []
    of_rows = NeighbourBatches.of_rows
    monkeypatch.setattr(generation, "BATCH", 10)
    monkeypatch.setattr(
        NeighbourBatches, "of_rows", lambda self, rows, ranks: drawn.append((rows, ranks)) or of_rows(self, rows, ranks)
    )
    networks = load_networks(run)
    first, again, _ = (np.concatenate(list(mixed_scenes(networks, source, d, CPU))) for d in (0, 0, 1))
    assert first.shape == store.images.shape
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in drawn]), np.tile(np.arange(24), 3))
    ranks = np.concatenate([ranks for _, ranks in drawn]).reshape(3, 24, 4)
    assert set(ranks.flat) == set(range(10))
    np.testing.assert_array_equal(ranks[0], ranks[1])
    assert (ranks[0] != ranks[2]).mean() > 0.8
    batch = of_rows(source, np.arange(24), ranks[0])
    together = to_uint8_nhwc(Fast().scenes(networks, batch).I_mix.detach())
    apart = np.abs(first.astype(int) - together)  # more images at a time may round the other way
    assert apart.max() <= 1
    assert apart.mean() < 1e-4


def test_real_images_are_of_the_side_of_mixed_scenes(store, tmp_path):
    """A streamed run's images may have another side than its store's."""
    config = replace(TINY, images="streamed", model=replace(TINY.model, image_size=96))
    features, seen = extractor_features("descriptor", None, CPU), []
    noted = replace(features, describe=lambda images: seen.append(images.shape[1:]) or features.describe(images))
    generation._real(tmp_path, scene_batches(config, store), noted)
    assert seen == [(96, 96, 3)]


def test_whole_images_are_described_as_the_extractor_describes_quadrants(store):
    images = np.asarray(store.images[:5])
    found = extractor_features("descriptor", None, CPU).describe(images)
    extractor = load_extractor("descriptor", None, CPU)
    half = extractor.side // 2
    for image, features in zip(images, found.features, strict=True):
        square = np.tile(area_resize(image, half), (2, 2, 1))
        np.testing.assert_array_equal(extractor.extract(square[None])[0, 3], features)
    assert found.probabilities is None


def test_results_are_kept_for_these_weights(run, source, monkeypatch):
    networks = load_networks(run).train()
    features = extractor_features("descriptor", None, CPU)
    result = measure_generation(networks, source, features, run, 6)
    assert networks.training, "a training loop can go on"
    value, low, high = result["frechet"]
    assert low < value < high
    assert "not FID" in result["distance"]
    assert "is" not in result
    monkeypatch.setattr(generation, "mixed_scenes", None)
    assert measure_generation(networks, source, features, run, 6) == json.loads(json.dumps(result))
    networks.dec.last.bias.data += 1
    with pytest.raises(TypeError):
        measure_generation(networks, source, features, run, 6)


def test_a_place_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path):
    (tmp_path / "evaluation").touch()  # no folder
    with pytest.raises(UserError, match=r"cannot write .*evaluation/generation: Not a directory; choose another place"):
        cached(tmp_path / "evaluation" / "generation" / "1.json", {}, lambda: pytest.fail("measured first"))


def test_other_candidates_are_measured_anew(run, source, monkeypatch):
    networks, features = load_networks(run), extractor_features("descriptor", None, CPU)
    monkeypatch.setattr(generation, "describe_all", lambda batches, *_: generation.Described(np.empty((0, 2)), None))
    monkeypatch.setattr(generation, "_compared", lambda *_: {})
    table = source.neighbours
    others = replace(table, rows=table.rows[:, :, ::-1].copy())
    settings = [
        measure_generation(networks, one, features, run, 6)["setting"]
        for one in (source, replace(source, neighbours=others), replace(source, seed=source.seed + 1))
    ]
    assert len({json.dumps(setting) for setting in settings}) == 3


def test_worse_images_are_farther(run, source):
    """Images blended with noise lie farther from the real ones than the images themselves."""
    features = extractor_features("descriptor", None, CPU)
    real = np.asarray(source.store.images)
    noise = np.random.default_rng(0).integers(0, 256, real.shape, dtype=np.uint8)
    distances = [
        generation._compared(*(features.describe(x) for x in (real, made)), None)["frechet"].value
        for made in (real, real // 2 + noise // 2, noise)
    ]
    assert distances[0] == pytest.approx(0, abs=1e-4)
    assert distances[0] < distances[1] < distances[2]


def test_features_must_be_named():
    with pytest.raises(UserError, match="name --inception FILE"):
        image_features(None, None, None, CPU)
    with pytest.raises(UserError, match="the judged network itself"):
        image_features(None, "encoder", None, CPU)
    with pytest.raises(UserError, match=r"nowhere\.pth is missing: check"):
        image_features(Path("nowhere.pth"), None, None, CPU)
    with pytest.raises(UserError, match="--weights are for these"):
        image_features(Path("nowhere.pth"), None, Path("others.pth"), CPU)


@pytest.mark.parametrize(
    ("asked", "told"),
    [({"weights": "weights.pth"}, "name --inception FILE"), ({"features": "nope"}, "no features 'nope'")],
)
def test_features_that_cannot_be_are_told_before_a_training(asked, told, store, run, tmp_path, monkeypatch):
    config = replace(TINY, evaluation=EvaluationConfig(**asked), iterations=9)
    monkeypatch.setattr(Training, "choose_forms", None)
    for one in (Run.create(tmp_path / "new", config, store.path), replace(Run.open(run), config=config)):
        with pytest.raises(UserError, match=told):
            run_training(one, store)
    assert Run.open(run).config == TINY, "what was refused is not kept"


def test_stores_that_cannot_be_measured_are_told_before_the_first_is(run, photographs, tmp_path, capsys):
    prepare_store(tmp_path / "bare", photographs, of_folder(photographs), Recipe())
    stores = [str(Run.open(run).store), str(tmp_path / "bare")]
    with pytest.raises(SystemExit):
        main(["evaluate", "generation", str(run), "--features", "descriptor", "--stores", *stores])
    assert "bare has no neighbours yet" in capsys.readouterr().err
    assert not (run / "evaluation").exists()


def test_results_of_two_stores_of_one_name_would_be_one(run, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "generation", str(run), "--stores", "a/store", "b/store", "--features", "descriptor"])
    assert "two stores to measure on have the same name" in capsys.readouterr().err


def test_a_run_of_a_gpu_is_measured_and_drawn_without(run, tmp_path, capsys):
    config = run / "config.json"
    config.write_text(config.read_text().replace('"device": "auto"', '"device": "cuda"'))
    assert Run.open(run).config.device == "cuda"
    named = tmp_path / "p[bw]"  # of which a table's markup would leave "p"
    named.symlink_to(Run.open(run).store)
    main(["evaluate", "generation", str(run), "--features", "descriptor", "--device", "cpu", "--stores", str(named)])
    assert "│ p[bw] " in capsys.readouterr().out
    main(["render", str(run), "--samples", "2"])
    assert (run / "mixed_scenes.png").exists()


def test_the_command_and_the_curves(run, capsys):
    assert draw_generation_curves(run) is None
    main(["evaluate", "generation", str(run), "--features", "descriptor", "--all-checkpoints"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "not Inception's" in shown
    assert "over 3 checkpoints" in shown
    assert re.search(r"Frechet distance \(not FID\) mean [\d.]+, sd [\d.]+, best [\d.]+ \(iteration \d\)", shown)
    assert f"photographs of {Run.open(run).open_store().root}" in shown
    assert "FID 137" not in shown
    assert len(list((run / "evaluation" / "generation").glob("*.json"))) == 3
    with Image.open(run / "evaluation" / "generation.png") as picture:
        assert picture.width > 800


def test_a_training_run_is_measured_after_every_second_epoch(store, tmp_path):
    """24 images and batches of 6: four iterations an epoch. The networks are the same as without."""
    settings = replace(TINY, batch_size=6, iterations=9)
    plain, measured = (
        Run.create(tmp_path / name, config, store.path)
        for name, config in {
            "plain": settings,
            "measured": replace(settings, evaluation=EvaluationConfig(features="descriptor", epochs=2)),
        }.items()
    )
    for run in (plain, measured):
        run_training(run, store)
    results = generation_results(measured.folder)
    assert [result["iteration"] for result in results] == [8]
    assert (measured.folder / "evaluation" / "generation.png").exists()
    weights, others = (load_networks(run.folder).state_dict() for run in (plain, measured))
    for name, value in weights.items():
        torch.testing.assert_close(others[name], value, rtol=0, atol=0)
    board = EventAccumulator(str(measured.folder / "tensorboard")).Reload()
    assert [(e.step, pytest.approx(e.value)) for e in board.Scalars("generation/frechet")] == [
        (result["iteration"], result["frechet"][0]) for result in results
    ]


def test_a_training_run_is_measured_on_the_stores_that_are_named(store, tmp_path, monkeypatch):
    """The thesis measures on tr_v6 and te_v2, and learns from tr_v5."""
    named = [str(shutil.copytree(store.path, tmp_path / name)) for name in ("tr_v6", "te_v2")]
    asked = EvaluationConfig(features="descriptor", stores=tuple(named))
    compared = {"frechet": (1.0, 0.0, 2.0), "kid": (0.0, 0.0, 0.0)}
    monkeypatch.setattr(generation, "describe_all", lambda batches, *_: generation.Described(np.empty((0, 2)), None))
    monkeypatch.setattr(generation, "_compared", lambda *_: compared)
    config = replace(TINY, batch_size=12, iterations=2, evaluation=asked)
    run = Run.create(tmp_path / "run", config, store.path)
    run_training(run, store)
    assert [(one["iteration"], one["store"]) for one in generation_results(run.folder)] == [(2, "te_v2"), (2, "tr_v6")]
    board = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    for name in ("te_v2", "tr_v6"):
        assert [(e.step, e.value) for e in board.Scalars(f"generation/{name}/frechet")] == [(2, 1.0)]


def test_stores_to_measure_on_that_cannot_be_are_told_before_a_training(store, tmp_path):
    for stores, features, told in (
        ((str(store.path), f"other/{store.path.name}"), "descriptor", "two stores to measure on have the same name"),
        ((str(store.path),), None, "name --inception FILE"),
        ((str(tmp_path / "nowhere"),), "descriptor", "nowhere is not an image store"),
    ):
        config = replace(TINY, evaluation=EvaluationConfig(features=features, stores=stores))
        with pytest.raises(UserError, match=told):
            run_training(Run.create(tmp_path / "run", config, store.path), store)


@pytest.mark.slow
def test_fid_and_is_are_names_for_the_published_weights_only(run, tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    torch.save(Inception().state_dict(), tmp_path / "inception.pth")
    command = ["evaluate", "generation", str(run), "--inception", str(tmp_path / "inception.pth"), "--all-checkpoints"]
    folder = run / "evaluation" / "generation"

    main(command)
    shown = " ".join(capsys.readouterr().out.split())
    assert "weights inception.pth" in shown
    assert "resize to 299 px bilinear as TensorFlow 1" in shown
    assert "not that of inception-2015-12-05" in shown
    main(["evaluate", "report", str(run)])
    everything = shown + (run / "evaluation" / "report.html").read_text().split("Linear classification")[0]
    everything += "".join(path.name + path.read_text() for path in folder.glob("*.json"))
    assert not re.search(r"\bFID\b|\bIS\b", everything)
    result = generation_results(run)[0]
    assert result["distance"] == "Frechet distance (other Inception weights)"
    assert 1 <= result["class_score"][0] < 1008
    assert "is" not in result

    monkeypatch.setattr(image_features_module, "PUBLISHED_SHA256", checksum(tmp_path / "inception.pth"))
    monkeypatch.setattr(generation, "PUBLISHED_SHA256", checksum(tmp_path / "inception.pth"))
    main(command)
    shown = " ".join(capsys.readouterr().out.split())
    assert "FID" in shown
    assert "mean 158.5, sd 10.9, best 137.7 (epoch 73)" in shown, "Table 4.4"
    assert "author's logs, epoch 73, not in the thesis: FID 137.66" in shown
    named = [result for result in generation_results(run) if result["distance"] == "FID"]
    assert len(named) == 3
    assert named[0]["is"] == result["class_score"]


def test_results_of_earlier_versions_lose_names_that_are_not_theirs(tmp_path):
    folder = tmp_path / "evaluation" / "generation"
    folder.mkdir(parents=True)
    facts = {"iteration": 1, "store": "store", "distance": "FID", "is": [2, 1, 3], "is_splits": [2, 1]}
    for name, sha256 in (("published", "6726825d"), ("other", "01234567")):
        (folder / f"{name}.json").write_text(json.dumps(facts | {"features": f"weights x (sha256 {sha256}); resize"}))
    other, published = generation_results(tmp_path)
    assert (published["distance"], published["is"]) == ("FID", [2, 1, 3])
    assert other["distance"] == "Frechet distance (other Inception weights)"
    assert (other["class_score"], other["class_score_splits"]) == ([2, 1, 3], [2, 1])
    assert "is" not in other
