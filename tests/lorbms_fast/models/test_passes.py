"""Passes of a network share what its parameters alone decide, and nothing that is out of date."""

import pytest
import torch

from lorbms_fast.kernels import passes
from lorbms_fast.models import build
from lorbms_fast.optimizers import Optimizers, update
from tests.conftest import TINY


@pytest.fixture
def networks():
    return build(TINY.model, "fast").double().train()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def test_two_passes_are_two_calls(networks, images):
    encode, encode_again = passes(networks.enc, 2)
    decode, decode_again = passes(networks.dec, 2)
    shared = decode_again(encode_again(decode(encode(images))))
    plain = networks.dec(networks.enc(networks.dec(networks.enc(images))))
    torch.testing.assert_close(shared, plain, rtol=0, atol=0)
    wanted = networks.generator
    found, expected = (torch.autograd.grad(y.square().sum(), wanted) for y in (shared, plain))
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-9)


def test_a_pass_is_refused_after_an_update(networks, images):
    """Autocast's cache once handed out weights of before an update: here nobody may."""
    optimizers = Optimizers.of(networks, TINY.optim)
    encode, late = passes(networks.enc, 2)
    update(optimizers.generator, encode(images).square().sum())
    with pytest.raises(RuntimeError, match="Encoder's parameters have changed"):
        late(images)
    before = passes(networks.enc, 1)[0](images)
    update(optimizers.generator, before.square().sum())
    assert not torch.equal(passes(networks.enc, 1)[0](images), before)


def test_a_pass_is_refused_after_u_has_moved(networks):
    (decode,) = passes(networks.dec, 1)
    networks.dec.last.u.mul_(2)
    with pytest.raises(RuntimeError, match="Decoder's parameters have changed"):
        decode(torch.zeros(1, 4, TINY.model.chunk, dtype=torch.float64))


def test_a_network_that_packs_nothing_is_its_own_pass():
    network = torch.nn.Linear(2, 2)
    assert passes(network, 2) == [network, network]


@pytest.mark.parametrize("name", ["cls", "dsc"])
def test_parameters_are_cast_once_to_what_autocast_would_make_of_them(name):
    network = getattr(build(TINY.model, "fast").train(), name)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inputs = (images, images.expand(4, -1, -1, -1, -1).contiguous()) if name == "cls" else (images,)
    results = []
    for of_network in (lambda: passes(network, 1)[0], lambda: network):
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            y = of_network()(*inputs)
        results.append([y, *torch.autograd.grad(y.float().square().sum(), list(network.parameters()))])
    for found, expected in zip(*results, strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
