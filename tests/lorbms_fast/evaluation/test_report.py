"""Ablation, calibration and the report, by their commands."""

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from lorbms_fast.cli import main
from lorbms_fast.config import LossConfig, TrainConfig, to_json
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.ablation import BEYOND, VARIANTS, ablation_rows, variant_config
from lorbms_fast.evaluation.calibration.decoders import DECODERS
from tests.conftest import TINY

PROBE = ["--probe.epochs", "1", "--views", "1"]


def test_each_variant_leaves_one_loss_out():
    found = {name: variant_config(TINY, name).loss for name in VARIANTS}
    assert found["full"] == LossConfig()
    weights = {name: (loss.rec, loss.adv, loss.cls) for name, loss in found.items() if name != "full"}
    assert weights == {"no-cls": (0.904, 0.052, 0), "no-rec": (0, 0.052, 0.044), "no-adv": (0.904, 0, 0.044)}
    with pytest.raises(UserError, match="choose of full, no-cls"):
        variant_config(TINY, "no-D")
    without = replace(TINY, loss=LossConfig(adv=0))
    assert variant_config(without, "no-cls").loss == LossConfig(adv=0, cls=0)
    with pytest.raises(UserError, match="leave L_adv out already"):
        variant_config(without, "no-adv")


class Asked(Exception):
    """What a command asks for, in the place of doing it."""


@pytest.mark.parametrize(("command", "work"), [("ablation", "_trained"), ("calibration", "calibrate")])
def test_the_demos_networks_learn_by_the_thesiss_losses(command, work, store, stl10_folder, tmp_path, monkeypatch):
    """The preset itself has no L_adv, which both are about."""

    def ask(_name: object, config: TrainConfig, *_of: object) -> None:
        raise Asked(config.loss, config.evaluation.stores)

    monkeypatch.setattr(importlib.import_module(f"lorbms_fast.commands.evaluate.{command}"), work, ask)
    (tmp_path / "changed.toml").write_text("[loss]\ncls = 0.1")
    measured, stores = [], ()
    if command == "ablation":
        stores = (str(store.path.resolve()),)
        measured = ["--stl10", str(stl10_folder), "--features", "descriptor", "--measured", *stores]
    arguments = ["evaluate", command, str(store.path), "--out", str(tmp_path / "out"), "--preset", "demo", *measured]
    for more, loss in (([], LossConfig()), (["--config", str(tmp_path / "changed.toml")], LossConfig(cls=0.1))):
        with pytest.raises(Asked) as asked:
            main([*arguments, *more])
        assert asked.value.args == (loss, stores)


def test_the_ablation_measures_on_the_store_that_a_settings_file_names(store, stl10_folder, tmp_path, monkeypatch):
    def ask(_name: object, config: TrainConfig, *_of: object) -> None:
        raise Asked(*config.evaluation.stores)

    monkeypatch.setattr(importlib.import_module("lorbms_fast.commands.evaluate.ablation"), "_trained", ask)
    there, settings = tmp_path / "there", tmp_path / "settings.json"
    there.symlink_to(store.path)
    ablation = ["evaluate", "ablation", str(store.path), "--out", str(tmp_path / "out"), "--stl10", str(stl10_folder)]
    ablation += ["--features", "descriptor", "--config", str(settings)]
    settings.write_text(json.dumps({"evaluation": {"stores": [str(there)]}}))
    with pytest.raises(Asked, match=str(store.path.resolve())):
        main(ablation)
    settings.write_text(json.dumps({"evaluation": {"stores": [str(there), str(store.path)]}}))
    with pytest.raises(Asked, match=str(store.path.resolve())):
        main([*ablation, "--measured", str(store.path)])
    with pytest.raises(SystemExit, match="2"):
        main(ablation)


def test_the_ablation_measures_by_the_features_that_a_settings_file_names(store, stl10_folder, tmp_path, monkeypatch):
    def ask(_name: object, config: TrainConfig, *_of: object) -> None:
        raise Asked(config.evaluation.features, config.evaluation.epochs)

    monkeypatch.setattr(importlib.import_module("lorbms_fast.commands.evaluate.ablation"), "_trained", ask)
    settings = tmp_path / "settings.toml"
    settings.write_text('[evaluation]\nfeatures = "descriptor"\nepochs = 2')
    ablation = ["evaluate", "ablation", str(store.path), "--out", str(tmp_path / "out"), "--stl10", str(stl10_folder)]
    ablation += ["--config", str(settings)]
    for more, used in (([], "descriptor"), (["--features", "efficientnet-lite0"], "efficientnet-lite0")):
        with pytest.raises(Asked) as asked:
            main([*ablation, *more])
        assert asked.value.args == (used, 2)


def test_table_4_5_averages_the_last_three_epochs(tmp_path):
    folder = tmp_path / "no-rec" / "evaluation" / "generation"
    folder.mkdir(parents=True)
    for i, (frechet, score) in enumerate([(900, 9), (200, 3), (260, 3.5), (320, 4)]):
        facts = {"iteration": i, "store": "s", "distance": "FID", "features": "weights (sha256 6726825d)"}
        facts |= {"frechet": [frechet, 0, 999], "is": [score, 0, 9]}
        (folder / f"{i}.json").write_text(json.dumps(facts))
    other = {"iteration": 0, "store": "s", "distance": "x", "features": "y", "frechet": [1, 1, 1]}
    (folder / "other.json").write_text(json.dumps(other))
    (row,) = ablation_rows(tmp_path)
    shown = ["without L_rec", "not measured", "26.3", "260.0 (mean of 3)", "261.9", "3.50 (mean of 3)", "3.2"]
    assert row == [*shown, *["not measured"] * 4]
    rate = {"percent": 80, "low": 49, "high": 94}
    found = {"psnr": {"I_hat": 22.71}, "retrieval": dict.fromkeys(BEYOND[1:], rate)}
    (tmp_path / "no-rec" / "evaluation" / "retrieval").mkdir()
    (tmp_path / "no-rec" / "evaluation" / "retrieval" / "1.json").write_text(json.dumps(found))
    (row,) = ablation_rows(tmp_path)
    assert row == [*shown, "22.7 dB", *["80.0 [49.0, 94.0] %"] * 3]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    (tmp_path / "tiny.json").write_text(to_json(TINY))
    return tmp_path / "tiny.json"


def test_an_empty_report_says_how_to_fill_it(run, capsys):
    main(["evaluate", "report", str(run)])
    page = (run / "evaluation" / "report.html").read_text()
    assert page.count("Not measured") == 6
    assert f"lorbms-fast evaluate linear {run}" in page
    assert page.count("data:image/png;base64,") == 3, "curves, best transfers, and the last sheet"
    assert "The best 8 of 64 transfers" in page
    assert not re.search(r'(src|href)="(?!data:)', page), "needs no other file"
    with pytest.raises(SystemExit):
        main(["evaluate", "report", str(run), "--ablation", "nowhere"])
    assert "nowhere is missing: name a folder" in capsys.readouterr().err


def test_mistakes_in_the_base_settings(store, stl10_folder, tmp_path, capsys):
    ablation = ["ablation", "--stl10", str(stl10_folder), "--features", "descriptor"]
    for name, *options in (ablation, ["calibration"]):
        with pytest.raises(SystemExit):
            main(["evaluate", name, str(store.path), "--out", str(tmp_path / "out"), "--preset", "x", *options])
        assert "there is no preset 'x'" in capsys.readouterr().err


@pytest.mark.slow
def test_everything_end_to_end(run, store, stl10_folder, composed_store, tiny, tmp_path, capsys):
    """All commands at reduced length on composed pictures, and the page that shows them."""
    folder = run / "evaluation"
    short = ["--config", str(tiny), "--iterations", "3"]
    ablation = ["--stl10", str(stl10_folder), "--features", "descriptor", *short, *PROBE]
    main(["evaluate", "ablation", str(store.path), "--out", str(folder / "ablation"), *ablation])
    main(["evaluate", "ablation", str(store.path), "--out", str(folder / "ablation"), *ablation])
    main(["evaluate", "calibration", str(store.path), "--out", str(folder / "calibration"), *short])
    main(["evaluate", "generation", str(run), "--features", "efficientnet-lite0", "--all-checkpoints"])
    main(["evaluate", "linear", str(run), "--stl10", str(stl10_folder), "--rows", "random", "encoder", *PROBE])
    main(["evaluate", "scenes", str(run), "--store", str(composed_store.path), "--pairs", "8"])
    main(["render", str(run)])
    main(["evaluate", "report", str(run)])
    shown = capsys.readouterr().out
    assert "STL-10 column: not STL-10" in shown
    page = (folder / "report.html").read_text()
    assert "Not measured" not in page
    for title in (*(variant.title for variant in VARIANTS.values()), *DECODERS, "LORBMS encoder", "leak"):
        assert f">{title}<" in page or f", {title}<" in page
    assert "EfficientNet-Lite0 Frechet distance (not FID)" in page
    assert "not STL-10: other pictures in its format" in page
    assert "STL-10 columns: 1 of 200 epochs, 1 of 200 views; not STL-10" in page
    assert "composed scenes, not COCO" in page
    assert page.count("data:image/png;base64,") == 6
    config = json.loads((folder / "ablation" / "no-rec" / "config.json").read_text())
    assert config["loss"]["rec"] == 0
    changed = [argument if argument != "3" else "4" for argument in ablation]
    with pytest.raises(SystemExit):
        main(["evaluate", "ablation", str(store.path), "--out", str(folder / "ablation"), *changed])
    assert "was trained with other settings" in capsys.readouterr().err


def test_the_ablations_table_fits_in_a_terminal(monkeypatch, capsys):
    ablation = importlib.import_module("lorbms_fast.commands.evaluate.ablation")
    measured = "34.6 +- 0.4", "34.6", "183.5 (mean of 3)", "183.5", "needs Inception", "6.0", "21.2 dB"
    rows = [[variant.title, *measured, *["41.9 [31.3, 49.1] %"] * 3] for variant in VARIANTS.values()]
    monkeypatch.setenv("COLUMNS", "80")
    ablation._print(rows, "colour and gradient Frechet distance (not FID)", "IS")
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert shown.count("34.6 +- 0.4") == len(VARIANTS)


def test_a_variant_may_go_on_on_another_device(run, store, capsys):
    """Here one that is at its end: its epochs may be measured anew."""
    ablation = importlib.import_module("lorbms_fast.commands.evaluate.ablation")
    assert ablation._trained(run, replace(TINY, device="cpu"), store).folder == run
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="was trained with other settings"):
        ablation._trained(run, replace(TINY, seed=1), store)
