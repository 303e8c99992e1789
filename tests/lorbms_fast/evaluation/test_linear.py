"""Table 4.3, row by row."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lorbms_fast.cli import main
from lorbms_fast.config import ModelConfig
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation import linear
from lorbms_fast.evaluation.alexnet import AlexNet, AlexNetConvs
from lorbms_fast.evaluation.backbones import DiscriminatorBackbone, alexnet_backbone, encoder_backbone
from lorbms_fast.evaluation.linear import ROWS, classifier_parameters, evaluate_row
from lorbms_fast.evaluation.pretraining import Sources
from lorbms_fast.evaluation.probe import LinearConfig, ProbeConfig
from lorbms_fast.models import build
from lorbms_fast.models.discriminator import Discriminator
from tests.lorbms_fast.evaluation.datasets.test_voc import write_voc

CPU = torch.device("cpu")
SHORT = LinearConfig(
    probe=ProbeConfig(epochs=4, batch_size=5),
    views=2,
    finetune_batch=5,
    stl10_epochs=1,
    stl10_batch=10,
    pascal_iterations=2,
    pascal_batch=2,
    alexnet_epochs=1,
    alexnet_batch=4,
    large_side=96,
    clusters=3,
    alexnet_widths=(4, 4, 4, 4, 4),
    alexnet_hidden=8,
)


@pytest.mark.parametrize("impl", ["reference", "fast"])
def test_classifiers_have_the_sizes_of_the_thesis(impl):
    networks = build(ModelConfig(), impl)
    assert classifier_parameters(encoder_backbone(networks.enc), 96, 10) == 17_290
    assert classifier_parameters(DiscriminatorBackbone(networks.dsc), 96, 10) == 120_970
    assert classifier_parameters(alexnet_backbone(AlexNetConvs()), 96, 10) == 40_970


def test_discriminator_features_are_those_before_its_logits(tmp_path):
    dsc = build(ModelConfig(discriminator_width=3), "fast").dsc
    assert isinstance(dsc, Discriminator)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    maps = DiscriminatorBackbone(dsc)(images).unflatten(1, (-1, 4, 4))
    torch.testing.assert_close(dsc.conv5(maps), dsc(images))


def test_alexnet_reads_both_sides():
    for side, maps in ((96, 4), (224, 12)):
        network = AlexNet(7, side, widths=(2, 4, 4, 4, 4), hidden=3)
        assert network(torch.zeros(2, 3, side, side)).shape == (2, 7)
        assert network.convs(torch.zeros(1, 3, side, side)).shape == (1, 4, maps, maps)


@pytest.fixture
def sources(run: Path, stl10) -> Sources:
    return Sources(run, stl10, SHORT, CPU)


def test_a_frozen_row_is_kept_and_made_again_only_for_another_setting(sources, monkeypatch):
    result = evaluate_row("encoder", sources)
    assert len(result["folds"]) == 10
    assert result["accuracy"] == pytest.approx(np.mean(result["folds"]))
    assert result["sd"] == pytest.approx(np.std(result["folds"], ddof=1))
    assert result["pictures"].startswith("not STL-10")
    assert result["lengths"] == "4 of 200 epochs, 2 of 200 views"
    assert not list((sources.folder / "features").iterdir()), "features are not left behind"
    monkeypatch.setattr(linear, "train_folds", None)
    assert evaluate_row("encoder", sources) == json.loads((sources.folder / "encoder.json").read_text())
    with pytest.raises(TypeError):
        evaluate_row("encoder", replace(sources, config=replace(SHORT, views=1)))


def test_features_are_computed_once(sources, monkeypatch):
    monkeypatch.setattr(linear, "accuracies", None)  # "killed" just before the end
    with pytest.raises(TypeError):
        evaluate_row("random", sources)
    monkeypatch.undo()
    files = sorted(sources.folder.rglob("*.npy"))
    assert [file.name for file in files] == ["test.npy", "view_0000.npy", "view_0001.npy"]
    test, first, second = map(np.load, files)
    assert first.shape == second.shape == (50, 9 * 4)
    assert test.dtype == np.float32
    assert not np.array_equal(first, second)
    files[1].unlink()
    stamps = [file.stat().st_mtime_ns for file in (files[0], files[2])]
    evaluate_row("random", sources, keep_features=True)
    assert [file.stat().st_mtime_ns for file in (files[0], files[2])] == stamps
    np.testing.assert_array_equal(np.load(files[1]), first)


def test_a_finetuned_row_goes_on_after_its_finished_folds(sources, monkeypatch):
    sources = replace(sources, config=replace(SHORT, probe=ProbeConfig(epochs=1), finetune_batch=10))
    whole = evaluate_row("discriminator-finetuned", sources)["folds"]
    (sources.folder / "discriminator-finetuned.json").unlink()
    made = []
    train = linear.train_supervised

    def dies_in_the_fourth(*arguments, **options):
        made.append(options["title"])
        if len(made) == 4:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(linear, "train_supervised", dies_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        evaluate_row("discriminator-finetuned", sources)
    assert evaluate_row("discriminator-finetuned", sources)["folds"] == whole
    assert len(made) == 4 + 7


def test_rows_say_what_they_need(sources):
    with pytest.raises(UserError, match="needs --voc"):
        evaluate_row("pascal-encoder", sources)
    with pytest.raises(UserError, match="needs --imagenet"):
        evaluate_row("imagenet-alexnet", sources)
    with pytest.raises(UserError, match="24 images for 2000 clusters"):
        evaluate_row("knowledge-transfer-encoder", replace(sources, config=replace(SHORT, clusters=2000)))


@pytest.mark.parametrize(
    ("rows", "refusal"),
    [
        (["alexnet"], "choose of random, "),
        (["encoder", "pascal-encoder"], "needs --voc"),
        (["all"], "needs --voc"),
        (["encoder", "pascal-encoder", "--voc", "nowhere"], "--voc nowhere is missing"),
    ],
)
def test_the_command_refuses_rows_that_cannot_be_made_before_it_makes_others(rows, refusal, run, stl10_folder, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "linear", str(run), "--stl10", str(stl10_folder), "--rows", *rows])
    assert refusal in capsys.readouterr().err
    assert not (run / "evaluation" / "linear").exists()


def test_the_command_prints_the_table(run, stl10_folder, capsys):
    options = ["--probe.epochs", "2", "--views", "1", "--rows", "encoder"]
    main(["evaluate", "linear", str(run), "--stl10", str(stl10_folder), *options])
    shown = capsys.readouterr().out
    assert "not STL-10" in shown
    assert "36.5 +- 0.2" in shown
    assert (run / "evaluation" / "linear" / "encoder.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_every_row_runs_end_to_end(row, sources, tmp_path):
    voc = write_voc(tmp_path / "VOC2007", {str(i): [("dog", 0)] for i in range(4)})
    for i in range(8):
        (tmp_path / "imagenet" / f"n{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (120, 100), (i * 20, 9, 9)).save(tmp_path / "imagenet" / f"n{i % 2}" / f"{i}.jpg")
    result = evaluate_row(row, replace(sources, voc=voc, imagenet=tmp_path / "imagenet"))
    assert all(0 <= accuracy <= 100 for accuracy in result["folds"])
    assert result["thesis"] == ROWS[row].thesis
