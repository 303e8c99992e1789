"""Receptive fields: the thesis's numbers, and the formula against what gradients see."""

import pytest
import torch
import torch.nn.functional as F

from lorbms_fast.config import ModelConfig
from lorbms_fast.models import build
from lorbms_fast.models.receptive_field import Window, receptive_field, windows_of
from lorbms_fast.models.summary import receptive_fields
from lorbms_fast.models.variants import rf46_encoder
from lorbms_fast.reference import encoder as reference_encoder

SMALL = {"classifier_hidden": 8}


def test_fields_of_the_thesis():
    """660 and 46: of the encoder the thesis counts what lies behind its first convolution."""
    assert receptive_fields(ModelConfig(**SMALL)) == {
        "encoder": 662,
        "encoder, from its second layer": 660,
        "discriminator": 46,
    }
    small = receptive_fields(ModelConfig(encoder="rf46-encoder", **SMALL))
    assert (small["encoder"], small["encoder, from its second layer"]) == (48, 46)


def test_windows_in_a_row():
    assert receptive_field([]) == 1
    assert receptive_field([Window(3, 1), Window(3, 1)]) == 5
    assert receptive_field([Window(2, 2), Window(3, 1)]) == 2 + 2 * 2


@pytest.mark.parametrize("name", ["enc", "rf46", "dsc"])
def test_gradients_see_as_much(name, monkeypatch):
    """With norms left out, averages instead of maxima, and positive weights, nothing in reach has gradient 0."""
    for module in (reference_encoder, rf46_encoder):
        monkeypatch.setattr(module, "instance_norm_relu", lambda x, *_: torch.relu(x))
    config = ModelConfig(
        image_size=256,
        stem=2,
        growth=1,
        layers=(1, 1, 2, 1, 1),
        chunk=2,
        discriminator_width=2,
        classifier_widths=(4, 4, 4, 4, 4),
        classifier_hidden=2,
        encoder="rf46-encoder" if name == "rf46" else "thesis",
    )
    networks = build(config, "reference")
    network = networks.dsc if name == "dsc" else networks.enc
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.1)
    image = torch.ones(1, 3, 256, 256, requires_grad=True)
    expected = receptive_field(windows_of(network, image))
    monkeypatch.setattr(F, "max_pool2d", F.avg_pool2d)
    made = network(image)
    side = 256 // (16 if name == "dsc" else 32)
    middle = (side // 2) * side + side // 2
    (made.flatten(2) if name == "dsc" else made.transpose(1, 2))[0, 0, middle].backward()
    assert (image.grad[0, 0] != 0).any(0).sum() == expected < 256
    assert (image.grad[0, 0] != 0).any(1).sum() == expected
