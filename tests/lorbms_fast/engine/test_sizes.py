"""From photographs to batches and a trained model at every image size, whichever way images are read."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from lorbms_fast.cli import main
from lorbms_fast.dataloader.pixels import to_uint8_nhwc
from lorbms_fast.run import Run, load_networks
from lorbms_fast.training.setup import batch_source
from tests.conftest import TINY


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of settings for a model that trains in a blink."""
    path = tmp_path_factory.mktemp("settings") / "tiny.json"
    changed = {"batch_size": 2, "iterations": 2, "checkpoint_every": 2, "sheet_every": 2}
    path.write_text(json.dumps(asdict(TINY) | changed))
    return path


@pytest.fixture(scope="module")
def stores(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """By the side of its images, a store as the commands make it, with neighbours."""
    folder = tmp_path_factory.mktemp("stores")
    for side in (64, 96, 128, 224):
        out = str(folder / str(side))
        main(["prepare", str(photographs), "--out", out, "--image-size", str(side), "--min-side", "1", "--workers=1"])
        main(["neighbours", out, "--features", "descriptor"])
    return {int(path.name): path for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("mode", "side"),
    [("mapped", 64), ("resident", 96), ("mapped", 128), ("resident", 224)]
    + [("streamed", side) for side in (64, 96, 128, 224)],
)
def test_every_size_trains(mode, side, stores, settings, tmp_path):
    stored = 64 if mode == "streamed" else side
    options = ["--config", str(settings), "--model.image-size", str(side), "--images", mode, "--device", "cpu"]
    main(["train", str(stores[stored]), "--out", str(tmp_path / "run"), *options])
    run = Run.open(tmp_path / "run")
    source = batch_source(run.config, run.open_store())
    exact = [[source.store.square(int(row), side) for row in rows] for rows in source.involved(3)]
    assert np.array_equal(to_uint8_nhwc(source.batch(3).I_ref), exact[0])
    assert np.array_equal(to_uint8_nhwc(source.batch(3).I_q), exact[1:])
    entries = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [entry["iteration"] for entry in entries] == [1, 2]
    assert all(np.isfinite(list(entry.values())).all() for entry in entries)
    networks = load_networks(run.folder)
    with torch.no_grad():
        codes = networks.enc(torch.zeros(1, 3, side, side))
        assert codes.shape == (1, (side // 32) ** 2, TINY.model.chunk)
        assert networks.dec(codes).shape == (1, 3, side, side)


@pytest.mark.parametrize(
    ("side", "message"),
    [
        (100, "model.image_size = 100: Input should be a multiple of 32"),
        (32, "a code of 1 chunks cannot be mixed in 4"),
    ],
)
def test_a_side_that_cannot_be_is_told_on_one_line(side, message, stores, settings, tmp_path, capsys):
    of_side = json.loads(settings.read_text())
    of_side["model"]["image_size"] = side
    (tmp_path / "side.json").write_text(json.dumps(of_side))
    options = ["--images", "streamed", "--config", str(tmp_path / "side.json")]
    with pytest.raises(SystemExit) as exit_:
        main(["train", str(stores[64]), "--out", str(tmp_path / "run"), *options])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
