"""A classifier that tells samples apart, and one that does not."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lorbms_fast.config import ModelConfig
from lorbms_fast.engine.collapse import (
    COLLAPSED,
    WARMED_UP,
    classifier_state,
    collapsed,
    discriminator_state,
    gain,
    spread,
)
from lorbms_fast.engine.implementations import implementation
from lorbms_fast.measurement.step import random_batch
from lorbms_fast.models import build
from lorbms_fast.models.variants import with_variant
from tests.conftest import TINY


def test_the_same_answer_for_all_has_neither_spread_nor_gain():
    targets = torch.tensor([[[1.0, 0], [0, 0], [1, 0], [0, 1]]])
    rates = targets.mean(1, keepdim=True).expand_as(targets)
    constant = torch.logit(rates)
    assert spread(constant) == 0
    assert gain(constant, targets) == pytest.approx(0, abs=1e-6)
    assert gain(constant + 1, targets) < -0.01


def test_the_right_answer_has_both():
    targets = torch.tensor([[[1.0], [0], [1], [0]]])
    right = 40 * targets - 20
    assert spread(right) == pytest.approx(0.5, abs=1e-6)
    assert gain(right, targets) == pytest.approx(math.log(2), abs=1e-6)


def test_autocast_on_cuda_lets_the_gain_be_measured():
    """It refuses some of torch's losses, where that on a CPU computes them in float32."""
    torch.set_autocast_enabled("cuda", True)
    try:
        with FakeTensorMode():
            logits = torch.zeros(4, 3, 4, device="cuda", dtype=torch.bfloat16)
            assert gain(logits, logits).shape == ()
    finally:
        torch.set_autocast_enabled("cuda", False)


@pytest.mark.parametrize("name", ["thesis", "squeezenet-classifier", "six-image-classifier"])
def test_a_collapsed_network_is_seen_and_left_as_it_was(name):
    model: ModelConfig = with_variant(TINY, name).model
    networks, impl, batch = build(model, "fast").train(), implementation(model, "fast"), random_batch(3, 64)
    last = networks.cls.last if name.startswith("squeezenet") else networks.cls.fc8
    with torch.no_grad():
        last.weight.zero_()
    before = {name: tensor.clone() for name, tensor in networks.state_dict().items()}
    assert classifier_state(networks, impl, batch.I_ref, batch)["spread"] < COLLAPSED
    after = networks.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("name", ["thesis", "global-local-discriminator"])
def test_a_collapsed_discriminator_is_seen(name):
    networks = build(with_variant(TINY, name).model, "fast").train()
    I_ref, I_mix = (random_batch(3, 64, seed).I_ref for seed in (0, 1))
    alive = discriminator_state(networks, I_ref, I_mix)
    assert alive["spread"] > 1e-5
    assert alive["gap"] != 0
    with torch.no_grad():
        last = [parameter for parameter in networks.dsc.parameters() if parameter.dim() > 1][-1]
        last.zero_()
    constant = discriminator_state(networks, I_ref, I_mix)
    assert constant == {"spread": 0, "gap": 0}
    states = {"classifier": {"spread": 0.3}, "discriminator": constant}
    assert [*collapsed(WARMED_UP - 1, states)] == []
    (told,) = collapsed(WARMED_UP, states)
    assert "the discriminator gives all samples the same answer" in told


def test_a_classifier_that_says_a_half_of_everything_is_seen_from_the_first_iteration():
    """Appendix D.8: SqueezeNet's last ReLU lets nothing through."""
    model: ModelConfig = with_variant(TINY, "squeezenet-classifier").model
    networks, impl, batch = build(model, "fast").train(), implementation(model, "fast"), random_batch(3, 64)
    alive = {"classifier": classifier_state(networks, impl, batch.I_ref, batch)}
    assert [*collapsed(1, alive)] == []
    with torch.no_grad():
        networks.cls.last.bias.fill_(-100)
    dead = {"classifier": classifier_state(networks, impl, batch.I_ref, batch)}
    assert dead["classifier"]["certainty"] == 0
    (told,) = collapsed(1, dead)
    assert told == "iteration 1: the classifier says 0.5 of everything (all logits are 0): it has collapsed"


def test_of_a_single_sample_nobody_can_tell():
    """As with --batch-size 1, or halves of 2."""
    networks, impl, batch = build(TINY.model, "fast").train(), implementation(TINY.model, "fast"), random_batch(1, 64)
    state = classifier_state(networks, impl, batch.I_ref, batch)
    assert math.isnan(state["spread"])
    assert [*collapsed(WARMED_UP, {"classifier": state})] == []
