"""The networks' sizes and initial values."""

from dataclasses import replace

import pytest
import torch

from lorbms_fast.config import PRESETS, ModelConfig
from lorbms_fast.models import build
from lorbms_fast.models.initial_values import initialize
from lorbms_fast.models.summary import describe, totals


def test_parameter_counts_of_the_thesis():
    assert totals(describe(ModelConfig())) == {
        "encoder": 2_800_512,
        "decoder": 5_300_339,
        "generator": 8_100_851,
        "discriminator": 1_188_391,
        "classifier": 45_355_044,
        "total": 54_644_286,
    }


def test_layers_are_listed_with_their_shapes():
    layers = {layer.name: layer.output for layer in describe(ModelConfig())["encoder"]}
    assert layers["first"] == (48, 64, 64)
    assert layers["block5.layer11"] == (16, 4, 4)
    assert layers["last"] == (192, 2, 2)


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("enc.block3.layer2.weight", 0, 0.02),
        ("enc.down4.weight", 0, 0.02),
        ("enc.first.bias", 0.01, 0),
        ("dec.up2.weight", 0, 1),
        ("dec.block1.layer3.weight", 0, 0.01 * 0.8796),  # a normal cut at two deviations keeps 0.88 of its own
        ("dec.last.bias", 0.01, 0),
        ("dsc.conv4.weight", 0, 0.01 * 0.8796),
        ("cls.conv3.weight", 0, (2 / (9 * 256 + 9 * 384)) ** 0.5),
        ("cls.bn4.gamma", 1, 0.02),
        ("cls.fc7.weight", 0, 0.02),
        ("cls.fc7.bias", 0.02, 0),
        ("dec.up1.u", 0, 0.8796),
    ],
)
def test_initial_values(networks, name, mean, std):
    values = networks.state_dict()[name]
    error_of_mean = 4 * std / values.numel() ** 0.5
    assert values.mean().item() == pytest.approx(mean, abs=error_of_mean + 1e-7)
    assert values.std(correction=0).item() == pytest.approx(std, rel=0.1, abs=1e-7)


@pytest.fixture(scope="module")
def networks():
    return build(ModelConfig(), "reference")


def test_seed_decides_the_initial_values():
    model = PRESETS["demo"].model
    first, same, other = (build(model, "reference", seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["enc.first.weight"], other["enc.first.weight"])
    assert not torch.equal(first["enc.block3.layer0.weight"][:, :8], first["enc.block3.layer1.weight"][:, :8])


def test_he_values_tell_images_apart_from_the_first_iteration_on():
    """Where reconstructions differ less than the first steps' noise, some hundred photographs stay one grey."""
    coarse = torch.empty(4, 3, 4, 4).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, size=64, mode="bilinear")
    demo = PRESETS["demo"].model
    spreads = {}
    for model in (demo, replace(demo, initial_values="thesis")):
        networks = build(model, "reference")
        with torch.no_grad():
            spreads[model.initial_values] = networks.dec(networks.enc(images)).std(0).mean().item()
        assert networks.dec.up2.weight.std().item() == pytest.approx(1, rel=0.1)
    assert spreads["he"] > 0.02 > 10 * spreads["thesis"]


def test_a_tensor_that_no_rule_knows_is_named():
    with pytest.raises(KeyError, match=r"no rule of initial values knows strange\.weight: give its variant one"):
        initialize(torch.nn.ModuleDict({"strange": torch.nn.Linear(1, 1)}), seed=0)
