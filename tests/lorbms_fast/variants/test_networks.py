"""The networks of variants against their definitions."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lorbms_fast.commands.info import describe, totals
from lorbms_fast.config import ModelConfig
from lorbms_fast.errors import UserError
from lorbms_fast.kernels.coord_conv.definition import append_coordinates
from lorbms_fast.models import build
from lorbms_fast.models.attention import SelfAttention
from lorbms_fast.models.variants import network, with_variant
from lorbms_fast.models.variants.broadcast_decoder import Decoder as BroadcastDecoder
from lorbms_fast.models.variants.squeezenet_classifier import Classifier as SqueezeNet
from lorbms_fast.models.variants.transposed_decoder import Decoder as TransposedDecoder
from lorbms_fast.variants import VARIANTS
from tests.conftest import TINY


def filled(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    draw = torch.Generator().manual_seed(seed)
    for tensor in module.double().state_dict().values():
        tensor.normal_(0, 0.5, generator=draw)
    return module


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def randn(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_attention_position_by_position():
    layer = filled(SelfAttention(16)).requires_grad_(False)
    x = randn(2, 16, 3, 5)
    f, g, h = (
        (part.normalised().flatten(1) @ x.flatten(2)) + part.bias[:, None] for part in (layer.f, layer.g, layer.h)
    )
    assert f.shape == (2, 2, 15)
    o = torch.zeros_like(h)
    for n in range(2):
        for j in range(15):
            beta = torch.softmax(torch.stack([f[n, :, i] @ g[n, :, j] for i in range(15)]), dim=0)
            o[n, :, j] = sum(beta[i] * h[n, :, i] for i in range(15))
    v = (layer.v.normalised().flatten(1) @ o + layer.v.bias[:, None]).unflatten(2, (3, 5))
    torch.testing.assert_close(layer(x), x + layer.gamma * v)


def test_attention_begins_as_the_network_without():
    plain = build(TINY.model, "torch")
    attentive = build(with_variant(TINY, "attention").model, "torch")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    for part in ("dec", "dsc"):
        network, other = getattr(plain, part), getattr(attentive, part)
        x = plain.enc(images) if part == "dec" else images
        torch.testing.assert_close(other(x), network(x), rtol=1e-5, atol=1e-6)
        assert other.attention.gamma == 0


def test_a_transposed_convolution_spreads_each_pixel():
    """By the definition: every input pixel adds its weight's 3x3 patch around twice its place."""
    decoder = TransposedDecoder(TINY.model)
    W, x = randn(3, 2, 3, 3), randn(1, 2, 4, 5, seed=2)
    expected = x.new_zeros(1, 3, 10, 12)
    for i in range(4):
        for j in range(5):
            patch = torch.einsum("c,ochw->ohw", x[0, :, i, j], W)
            expected[0, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += patch
    torch.testing.assert_close(decoder._up(x, W), expected[..., 1:9, 1:11])


def test_the_broadcast_decoder_tiles_its_code():
    decoder = filled(BroadcastDecoder(TINY.model)).requires_grad_(False)
    f = randn(2, 4, 4)
    x = append_coordinates(f.flatten(1)[:, :, None, None].repeat(1, 1, 64, 64))
    for layer in (decoder.first, decoder.second, decoder.third, decoder.fourth):
        x = torch.relu(F.conv2d(x, layer.normalised(), layer.bias, padding=1))
    expected = torch.tanh(F.conv2d(x, decoder.last.normalised(), decoder.last.bias))
    torch.testing.assert_close(decoder(f), expected)


def test_squeezenet_treats_candidates_one_by_one():
    classifier = filled(SqueezeNet(TINY.model))
    I_mix, I_q = randn(3, 3, 64, 64), randn(4, 3, 3, 64, 64, seed=2)
    together = classifier(I_mix, I_q)
    assert together.shape == (4, 3, 4)
    torch.testing.assert_close(together, torch.stack([classifier(I_mix, I_qj) for I_qj in I_q]))


@pytest.mark.parametrize("name", ["coordconv-discriminator", "coordconv-attention-discriminator"])
def test_the_discriminator_is_told_coordinates(name):
    discriminator = filled(build(with_variant(TINY, name).model, "torch").dsc).requires_grad_(False)
    images, first = randn(2, 3, 64, 64), discriminator.conv1
    x = F.leaky_relu(F.conv2d(append_coordinates(images), first.weight, first.bias, 2, 1), 0.2)
    if hasattr(discriminator, "attention"):
        x = discriminator.attention(x)
    for conv in (discriminator.conv2, discriminator.conv3, discriminator.conv4):
        x = F.leaky_relu(F.conv2d(x, conv.normalised(), conv.bias, 2, 1), 0.2)
    torch.testing.assert_close(discriminator(images), discriminator.conv5(x))


def test_global_local_reads_each_quadrant_and_the_whole():
    discriminator = filled(build(with_variant(TINY, "global-local-discriminator").model, "torch").dsc)
    image = randn(1, 3, 64, 64).requires_grad_()
    weigh = discriminator.weigh.weight
    with torch.no_grad():
        weigh[:, : weigh.shape[1] // 2] = 0  # deaf to the whole image
    made = discriminator(image)
    assert made.shape == (1, 1, 2, 2)
    made[0, 0, 0, 1].backward()
    seen = image.grad[0].abs().sum(0) > 0
    assert seen[:32, 32:].any()
    assert not seen[:, :32].any()
    assert not seen[32:].any()
    with torch.no_grad():
        weigh[:, : weigh.shape[1] // 2] = 1
    discriminator(image)[0, 0, 0, 1].backward()
    assert (image.grad[0, :, 32:, :32].abs().sum() > 0).item()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_described_whole(name):
    config = with_variant(replace(TINY), name)
    networks = build(config.model, "reference")
    assert totals(describe(config.model))["total"] == count(networks)


def test_parameters_at_the_thesis_sizes():
    """Only what should differ does, by as much as the definitions say."""
    with torch.device("meta"):
        assert count(network("Decoder", "transposed-decoder")(ModelConfig())) == 5_300_339
        assert count(network("Discriminator", "coordconv-discriminator")(ModelConfig())) == 1_188_391 + 2 * 16 * 42
        assert count(network("Classifier", "six-image-classifier")(ModelConfig())) == 45_355_044 + 12 * 64 * 96


def test_a_network_that_a_variant_lacks():
    with pytest.raises(UserError, match="'hinge' has no decoder of its own: name thesis, attention-decoder, "):
        build(replace(TINY.model, decoder="hinge"), "torch")
