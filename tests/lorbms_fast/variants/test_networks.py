"""The networks of variants against their definitions."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lorbms_fast.config import ModelConfig
from lorbms_fast.errors import UserError
from lorbms_fast.kernels import SpectralConv2d
from lorbms_fast.kernels.coord_conv.reference import append_coordinates
from lorbms_fast.kernels.spectral_norm.modules import unnormalized
from lorbms_fast.models import build
from lorbms_fast.models.summary import describe, totals
from lorbms_fast.models.variants import _VARIANTS, network, with_variant
from lorbms_fast.models.variants.attention import SelfAttention
from lorbms_fast.models.variants.broadcast_decoder import Decoder as BroadcastDecoder
from lorbms_fast.models.variants.coordconv_discriminator import CoordConv
from lorbms_fast.models.variants.squeezenet_classifier import Classifier as SqueezeNet
from lorbms_fast.models.variants.transposed_decoder import TransposedConv2d
from lorbms_fast.variants import VARIANTS
from tests.conftest import TINY


def filled(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    draw = torch.Generator().manual_seed(seed)
    for tensor in module.double().state_dict().values():
        if tensor.is_floating_point():
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
        (part.normalized().flatten(1) @ x.flatten(2)) + part.bias[:, None] for part in (layer.f, layer.g, layer.h)
    )
    assert f.shape == (2, 2, 15)
    o = torch.zeros_like(h)
    for n in range(2):
        for j in range(15):
            beta = torch.softmax(torch.stack([f[n, :, i] @ g[n, :, j] for i in range(15)]), dim=0)
            o[n, :, j] = sum(beta[i] * h[n, :, i] for i in range(15))
    v = (layer.v.normalized().flatten(1) @ o + layer.v.bias[:, None]).unflatten(2, (3, 5))
    torch.testing.assert_close(layer(x), x + layer.gamma * v)


def test_attention_begins_as_the_network_without():
    plain = build(TINY.model, "fast")
    attentive = build(with_variant(TINY, "attention").model, "fast")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    for part in ("dec", "dsc"):
        network, other = getattr(plain, part), getattr(attentive, part)
        x = plain.enc(images) if part == "dec" else images
        torch.testing.assert_close(other(x), network(x), rtol=1e-5, atol=1e-6)
        assert other.attention.gamma == 0


def test_a_transposed_convolution_spreads_each_pixel():
    """By the definition: every input pixel adds its weight's 3x3 patch around twice its place."""
    W, x = randn(3, 2, 3, 3), randn(1, 2, 4, 5, seed=2)
    expected = x.new_zeros(1, 3, 10, 12)
    for i in range(4):
        for j in range(5):
            patch = torch.einsum("c,ochw->ohw", x[0, :, i, j], W)
            expected[0, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] += patch
    layer = TransposedConv2d(2, 3, normalize=unnormalized).double()
    layer.weight.data.copy_(W)
    torch.testing.assert_close(layer(x), expected[..., 1:9, 1:11])


def test_the_broadcast_decoder_tiles_its_code():
    decoder = filled(BroadcastDecoder(TINY.model)).requires_grad_(False)
    f = randn(2, 4, 4)
    x = append_coordinates(f.flatten(1)[:, :, None, None].repeat(1, 1, 64, 64))
    for layer in (decoder.first, decoder.second, decoder.third, decoder.fourth):
        x = torch.relu(F.conv2d(x, layer.normalized(), layer.bias, padding=1))
    expected = torch.tanh(F.conv2d(x, decoder.last.normalized(), decoder.last.bias))
    torch.testing.assert_close(decoder(f), expected)


def test_squeezenet_treats_candidates_one_by_one():
    classifier = filled(SqueezeNet(TINY.model))
    I_mix, I_q = randn(3, 3, 64, 64), randn(4, 3, 3, 64, 64, seed=2)
    together = classifier(I_mix, I_q)
    assert together.shape == (4, 3, 4)
    torch.testing.assert_close(together, torch.stack([classifier(I_mix, I_qj) for I_qj in I_q]))


def test_squeezenet_ends_in_a_relu_and_an_average():
    """The layer before the average is all 0 where, and only where, every logit is: the probabilities are 0.5 (D.8)."""
    classifier = filled(SqueezeNet(TINY.model))
    before = []
    classifier.last.register_forward_hook(lambda layer, read, made: before.append(torch.relu(made)))
    pair = randn(3, 3, 64, 64), randn(3, 3, 64, 64, seed=2)
    torch.testing.assert_close(classifier(*pair), before[-1].mean((2, 3)))
    with torch.no_grad():
        classifier.last.weight.zero_()
        classifier.last.bias.fill_(-1)
    dead = classifier(*pair)
    assert before[-1].abs().max() == dead.abs().max() == 0
    dead.sum().backward()
    assert all(parameter.grad is None or parameter.grad.abs().max() == 0 for parameter in classifier.parameters())


def test_every_convolution_of_the_discriminator_is_told_coordinates():
    discriminator = filled(build(with_variant(TINY, "coordconv-discriminator").model, "fast").dsc)
    discriminator.requires_grad_(False)
    inside = {id(layer) for layer in discriminator.attention.modules()}
    layers = [layer for layer in discriminator.modules() if id(layer) not in inside]
    convolutions = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == len([layer for layer in layers if isinstance(layer, CoordConv)]) == 5
    images = x = randn(2, 3, 64, 64)
    for number, layer in enumerate(convolutions, start=1):
        weight = layer.normalized() if isinstance(layer, SpectralConv2d) else layer.weight
        last = number == 5
        x = F.conv2d(append_coordinates(x), weight, layer.bias, 1 if last else 2, 0 if last else 1)
        x = x if last else F.leaky_relu(x, 0.2)
        x = discriminator.attention(x) if number == 1 else x
    torch.testing.assert_close(discriminator(images), x)


def test_a_tile_is_encoded_on_its_own():
    networks = build(with_variant(TINY, "nine-tiles").model, "fast").double()
    encoder = filled(networks.enc).requires_grad_(False)
    images = randn(2, 3, 96, 96)
    codes = encoder(images)
    assert codes.shape == (2, 9, 4)
    changed = images.clone()
    changed[:, :, 32:64, 64:] = randn(2, 3, 32, 32, seed=3)
    others = [tile for tile in range(9) if tile != 5]
    after = encoder(changed)
    assert torch.equal(after[:, others], codes[:, others])
    assert (after[:, 5] != codes[:, 5]).all()
    one_by_one = build(TINY.model, "reference").double().enc
    one_by_one.load_state_dict(encoder.state_dict())
    for tile in range(9):
        y, x = divmod(tile, 3)
        alone = images[:, :, 32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
        torch.testing.assert_close(codes[:, tile], one_by_one(alone)[:, 0])


def test_larger_tiles_have_their_chunks_where_the_decoder_expects_them():
    model = replace(with_variant(TINY, "nine-tiles").model, image_size=192)
    encoder = filled(build(model, "fast").enc).requires_grad_(False)
    images = randn(1, 3, 192, 192)
    codes = encoder(images).unflatten(1, (6, 6))
    changed = images.clone()
    changed[:, :, 64:128, 128:] = 0
    moved = (encoder(changed).unflatten(1, (6, 6)) != codes).any(3)[0]
    assert moved[2:4, 4:].all()
    assert moved.sum() == 4
    with pytest.raises(UserError, match="64 px cannot be cut into 9 square tiles"):
        build(replace(model, image_size=64), "fast")
    with pytest.raises(UserError, match="224 px cannot be cut"):
        encoder(randn(1, 3, 224, 224))


def test_global_local_reads_a_random_patch_and_the_whole():
    discriminator = filled(build(with_variant(TINY, "global-local-discriminator").model, "fast").dsc)
    image = randn(1, 3, 64, 64).requires_grad_()
    weigh = discriminator.weigh.weight
    with torch.no_grad():
        weigh[:, : weigh.shape[1] // 2] = 0  # deaf to the whole image
    places = set()
    for _ in range(12):
        top, left = discriminator.corners(1, 64)[:, 0].tolist()
        image.grad = None
        made = discriminator(image)
        assert made.shape == (1, 1, 1, 1)
        made.sum().backward()
        rows, columns = (image.grad[0].abs().sum(0) > 0).nonzero().T
        assert (rows.min(), rows.max()) == (top, top + 31)
        assert (columns.min(), columns.max()) == (left, left + 31)
        places.add((top, left))
    assert len(places) == 12
    with torch.no_grad():
        weigh[:, : weigh.shape[1] // 2] = 1
    image.grad = None
    discriminator(image).sum().backward()
    assert (image.grad[0].abs().sum(0) > 0).all()


def test_patches_are_random_reproducible_and_left_alone_by_who_looks():
    def fresh(seed: int) -> torch.nn.Module:
        return build(with_variant(TINY, "global-local-discriminator").model, "fast", seed).train().dsc

    discriminator, images = fresh(0), torch.rand(8, 3, 64, 64)
    first = discriminator.corners(8, 64)
    with torch.no_grad():
        discriminator(images)
    assert torch.equal(discriminator.corners(8, 64), first)
    discriminator(images)
    second = discriminator.corners(8, 64)
    assert not torch.equal(second, first)
    assert torch.equal(fresh(0).corners(16, 64), torch.cat([first, second], dim=1))
    assert not torch.equal(fresh(1).corners(8, 64), first)
    resumed = fresh(2)
    resumed.load_state_dict(discriminator.state_dict())
    assert torch.equal(resumed(images), discriminator(images))
    many = discriminator.corners(20_000, 64)
    assert (many.amin(), many.amax()) == (0, 32)
    counts = torch.stack([along.bincount(minlength=33) for along in many])
    assert ((counts - 20_000 / 33).square() / (20_000 / 33)).sum(1).max() < 62.5  # chi-squared, 32 degrees, p 0.001


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_described_whole(name):
    config = with_variant(replace(TINY), name)
    networks = build(config.model, "reference")
    assert totals(describe(config.model))["total"] == count(networks)


def test_parameters_at_the_thesis_sizes():
    """Only what should differ does, by as much as the definitions say."""
    with torch.device("meta"):
        assert count(network("Decoder", "transposed-decoder")(ModelConfig())) == 5_300_339
        attention = 2 * 42 * 5 + 42 * 5 + 3 * 5 + 5 * 42 + 42 + 1
        told = 2 * 16 * (42 + 84 + 168 + 336) + 2
        coordinates = network("Discriminator", "coordconv-discriminator")(ModelConfig())
        assert count(coordinates) == 1_188_391 + told + attention
        assert count(network("Classifier", "six-image-classifier")(ModelConfig())) == 45_355_044 + 12 * 64 * 96


def test_a_network_that_a_variant_lacks():
    with pytest.raises(UserError, match="'hinge' has no decoder of its own: name thesis, attention-decoder, "):
        build(replace(TINY.model, decoder="hinge"), "fast")


def test_every_variant_has_a_name():
    assert set(_VARIANTS) == set(VARIANTS)
