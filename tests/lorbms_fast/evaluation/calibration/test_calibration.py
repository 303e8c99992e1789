"""The autoencoder calibration: decoders, training, resuming."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from lorbms_fast.cli import main
from lorbms_fast.config import ModelConfig
from lorbms_fast.dataloader.pixels import to_float_nchw
from lorbms_fast.errors import UserError
from lorbms_fast.evaluation.calibration import autoencoder as module
from lorbms_fast.evaluation.calibration.autoencoder import autoencoder, calibrate, quality
from lorbms_fast.evaluation.calibration.decoders import DECODERS
from lorbms_fast.kernels.spectral_norm.reference import spectral_norm
from lorbms_fast.models import build
from lorbms_fast.optimizers import Adam
from tests.conftest import TINY

CPU = torch.device("cpu")
CONFIG = replace(TINY, batch_size=4, optim=replace(TINY.optim, generator_lr=5e-3))
HE = replace(CONFIG, model=replace(CONFIG.model, initial_values="he"))


@pytest.mark.parametrize("name", DECODERS)
def test_all_decoders_have_the_parameters_of_the_thesis(name):
    decoder = DECODERS[name](ModelConfig())
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 5_300_339


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_start_alive(name):
    networks = autoencoder(name, CONFIG)
    I = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    I_hat = networks["dec"](networks["enc"](I))
    assert I_hat.shape == I.shape
    assert I_hat.std() > 1e-4
    assert I_hat.abs().max() < 1


@pytest.mark.parametrize("config", [CONFIG, HE], ids=["thesis", "he"])
def test_initial_values_are_a_runs(config):
    expected = build(config.model, "fast", config.seed).state_dict()
    for name, values in autoencoder("resize-sn", config).state_dict().items():
        assert torch.equal(values, expected[name]), name


def test_the_norm_is_there_or_not():
    for name in DECODERS:
        layers = [m for m in autoencoder(name, CONFIG)["dec"].modules() if hasattr(m, "normalized")]
        assert {layer.normalize is spectral_norm for layer in layers} == {name.endswith("-sn")}


def test_what_can_be_learned_is_learned(store):
    networks = autoencoder("resize", CONFIG)
    optimizers = [
        Adam([*networks["enc"].parameters(), *networks["dec"].parameters()], 5e-3),
        Adam(networks["dsc"].parameters(), 4e-4),
    ]
    images = to_float_nchw(np.array(store.images[:8]))
    losses = [float(module._step(networks, optimizers, images, CONFIG)[0]) for _ in range(100)]
    assert losses[-1] < 0.9 * losses[0]


def test_an_interrupted_training_goes_on_exactly(store, tmp_path, monkeypatch):
    step, steps = module._step, []

    def dies_in_the_twentieth_of_the_second(*arguments):
        steps.append(1)
        if len(steps) == 30 + 20:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(module, "_step", dies_in_the_twentieth_of_the_second)
    whole = calibrate("transposed-sn", CONFIG, store, 30, tmp_path / "whole", CPU)
    assert whole["psnr"] == whole["curve"][-1]["psnr"]
    assert [point["iteration"] for point in whole["curve"]] == list(range(1, 31))
    assert sorted(path.name for path in (tmp_path / "whole").iterdir()) == ["transposed-sn.json"]
    with pytest.raises(KeyboardInterrupt):
        calibrate("transposed-sn", CONFIG, store, 30, tmp_path / "again", CPU)
    other = replace(CONFIG, optim=replace(CONFIG.optim, betas=(0.9, 0.999)))
    for config, iterations in ((CONFIG, 5), (other, 30)):
        with pytest.raises(UserError, match="is the state of another training"):
            calibrate("transposed-sn", config, store, iterations, tmp_path / "again", CPU)
    again = calibrate("transposed-sn", CONFIG, store, 30, tmp_path / "again", CPU)
    assert again["curve"] == whole["curve"]
    assert len(steps) == 30 + 20 + (30 - 18), "went on after the eighteenth"


def test_results_that_name_no_initial_values_are_the_thesiss(store, tmp_path, monkeypatch):
    """They were not a setting before He's came."""
    made = calibrate("resize", CONFIG, store, 1, tmp_path, CPU)
    before = asdict(CONFIG.model)
    del before["initial_values"]
    (tmp_path / "resize.json").write_text(json.dumps(made | {"setting": made["setting"] | {"model": before}}))
    trained = []
    monkeypatch.setattr(module, "_train", lambda *_: trained.append(1) or made["curve"])
    assert calibrate("resize", CONFIG, store, 1, tmp_path, CPU)["curve"] == made["curve"]
    assert not trained
    calibrate("resize", HE, store, 1, tmp_path, CPU)
    assert trained


def test_quality_is_l1_and_psnr(store):
    networks = torch.nn.ModuleDict({"enc": torch.nn.Identity(), "dec": torch.nn.Hardtanh(-0.5, 0.5)})
    found = quality(networks, store, np.array([0, 3]), CPU)
    I = torch.from_numpy(store.images[[0, 3]]).double() * 2 / 255 - 1
    error = I - I.clamp(-0.5, 0.5)
    assert found["l1"] == pytest.approx(error.abs().mean().item(), rel=1e-4)
    psnr = [20 * np.log10(2 / np.sqrt((one**2).mean())) for one in error.numpy()]
    assert found["psnr"] == pytest.approx(np.mean(psnr), rel=1e-4)


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, model=replace(CONFIG.model, encoder="rf46-encoder")),
        replace(CONFIG, model=replace(CONFIG.model, discriminator="attention-discriminator")),
        replace(CONFIG, loss=replace(CONFIG.loss, gan="hinge")),
    ],
)
def test_what_would_not_be_used_is_refused(config, store, tmp_path):
    with pytest.raises(UserError, match=r"not by (rf46-encoder|attention-discriminator|hinge): leave it out"):
        calibrate("resize", config, store, 1, tmp_path, CPU)


def test_mistakes(store, tmp_path, capsys):
    asked = f"evaluate calibration {store.path} --out {tmp_path / 'out'} --variants resize bilinear"
    with pytest.raises(SystemExit):
        main(asked.split())
    assert "'bilinear': choose of resize-sn" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "nothing was trained before"
    large = replace(CONFIG, model=replace(CONFIG.model, image_size=96))
    with pytest.raises(UserError, match="prepare one with --image-size 96"):
        calibrate("resize", large, store, 1, tmp_path, CPU)
    with pytest.raises(UserError, match="lower --batch-size"):
        calibrate("resize", replace(CONFIG, batch_size=24), store, 1, tmp_path, CPU)
