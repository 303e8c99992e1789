"""Spectral normalization of a list of weights in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.kernels.spectral_norm import reference
from lorbms_fast.kernels.spectral_norm.triton import ops as in_triton

SHAPES = [(9, 2, 3, 3), (3, 5, 1, 1), (1, 1, 1, 1)]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch) -> None:
    """So that tiny weights have several."""
    monkeypatch.setattr(in_triton, "BLOCK_O", 8)
    monkeypatch.setattr(in_triton, "BLOCK_K", 16)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights_and_us(shapes=SHAPES) -> tuple[list[Tensor], list[Tensor]]:
    weights = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    return weights, [draw(1, shape[0], seed=9 + i) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize("shapes", [SHAPES, [(2, 17)]])
def test_output_and_gradients(agree, shapes):
    weights, us = weights_and_us(shapes)

    def exact(*weights):
        return [reference.spectral_norm(W, u.to(W.dtype))[0] for W, u in zip(weights, us, strict=True)]

    agree(lambda *weights: kernels.spectral_norm_all(weights, us, "triton"), exact, *weights)


def test_gradient_of_channels_last_weights(agree):
    weight, u = draw(3, 2, 3, 3).contiguous(memory_format=torch.channels_last), draw(1, 3, seed=1)
    assert kernels.spectral_norm_all([weight], [u], "triton")[0].stride() == weight.stride()
    agree(
        lambda W: kernels.spectral_norm_all([W], [u], "triton"),
        lambda W: reference.spectral_norm(W, u.double())[0],
        weight,
    )


def test_bfloat16_weights(agree):
    weight, u = draw(3, 4).bfloat16(), draw(1, 3, seed=1)
    agree(
        lambda W: kernels.spectral_norm_all([W], [u], "triton"),
        lambda W: reference.spectral_norm(W, u.double())[0],
        weight,
        tolerance=torch.finfo(torch.bfloat16).eps,
    )


def test_a_penalty_of_gradients():
    weights, us = weights_and_us([(3, 4), (2, 3)])
    x = draw(5, 4, seed=7)

    def penalty(impl, dtype):
        Ws, leaf = [W.to(dtype).requires_grad_() for W in weights], x.to(dtype).requires_grad_()
        first, second = kernels.spectral_norm_all(Ws, [u.to(dtype) for u in us], impl)
        y = torch.tanh(leaf @ first.T) @ second.T
        grads = torch.autograd.grad(y.square().sum(), [leaf, *Ws], create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), [leaf, *Ws])

    exact = penalty("reference", torch.float64)
    for found, expected in zip(penalty("triton", torch.float32), exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_advancing_u():
    weights, us = weights_and_us()
    expected = [reference.power_step(W.double(), u.double())[0] for W, u in zip(weights, us, strict=True)]
    kernels.advance_u(weights, us, impl="triton")
    for found, exact in zip(us, expected, strict=True):
        torch.testing.assert_close(found, exact.float(), rtol=1e-5, atol=1e-6)


def test_opcheck():
    weights, us = weights_and_us(SHAPES[:1])
    arguments = (weights[0].flatten().requires_grad_(), us[0].flatten(), [9, 18])
    torch.library.opcheck(in_triton.normalize, arguments)
    torch.library.opcheck(in_triton.power_step, (arguments[0].detach(), *arguments[1:]))


def test_compiles_without_a_break():
    weights, us = weights_and_us(SHAPES[1:])
    weights = [weight.requires_grad_() for weight in weights]

    def function(*weights):
        return sum(W.square().sum() for W in kernels.spectral_norm_all(weights, us, "triton"))

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for f, e in zip(
        torch.autograd.grad(compiled(*weights), weights), torch.autograd.grad(function(*weights), weights), strict=True
    ):
        torch.testing.assert_close(f, e)
