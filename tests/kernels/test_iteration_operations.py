"""Fused forms of batch assembly, loss head, pools and pooled convolution against their definitions, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast import kernels

fast = settings(deadline=None, max_examples=20)
size = st.integers(1, 5)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def results(outputs, wanted):
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    return [*outputs, *torch.autograd.grad(sum((y * (i + 2)).sin().sum() for i, y in enumerate(outputs)), wanted)]


@fast
@given(size, size, st.integers(2, 7), st.integers(2, 7), st.booleans(), st.booleans())
def test_max_pool(n, channels, height, width, channels_last, ties):
    x = draw(n, channels, height, width)
    if channels_last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    if ties:
        x = x.detach().round().requires_grad_()
    found, expected = (results(kernels.max_pool2x2(x, impl), [x]) for impl in ("torch", "reference"))
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@fast
@given(size, size, size, st.integers(2, 7), st.integers(2, 7), st.booleans(), st.booleans())
def test_pooled_conv(n, channels, out, height, width, channels_last, ties):
    x, weight, bias = draw(n, channels, height, width), draw(out, channels, 1, 1, seed=1), draw(out, seed=2)
    if ties:
        x, weight = (t.detach().round().requires_grad_() for t in (x, weight))
    arranged = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    wanted = [x, weight, bias]
    found, expected = (
        results(kernels.pooled_conv2d(arranged, weight, bias, impl), wanted) for impl in ("torch", "reference")
    )
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-12, atol=1e-12)


@fast
@given(size, size, st.sampled_from(("cross-entropy", "hinge")))
def test_loss_head(n, side, gan):
    tensors = [draw(n, 3, side, side, seed=i) for i in range(3)] + [draw(n, 4, 4, seed=4), draw(4, n, 4, seed=5)]
    mask = draw(n, 4, seed=6) > 0
    found, expected = (
        results(kernels.loss_head(*tensors, mask, (0.9, 0.2, 0.3), (1, 0, 2, 0.5), gan, impl), tensors)
        for impl in ("torch", "reference")
    )
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e)


def test_loss_head_is_the_thesis():
    ones, mask = torch.ones(1, 3, 2, 2), torch.zeros(1, 4, dtype=torch.bool)
    L_G, *parts = kernels.loss_head(
        ones, ones - 0.5, ones + 2, torch.zeros(1, 1, 4, 4), torch.zeros(4, 1, 4), mask, (100, 10, 1), (1,) * 4
    )
    ln2 = 0.6931472
    assert [part.item() for part in parts] == pytest.approx([0.5, 2, ln2, 4 * ln2])
    assert L_G.item() == pytest.approx(100 * 2.5 + 10 * ln2 + 4 * ln2)


def test_relu_grouped_batch_norm_is_relu_then_batch_norm():
    x, gamma, beta = draw(4, 2, 3, 3), draw(2, seed=1), draw(2, seed=2)
    found = kernels.relu_grouped_batch_norm(x, gamma, beta, 2)
    expected = kernels.grouped_batch_norm(torch.relu(x), gamma, beta, 2, impl="reference")
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e)
