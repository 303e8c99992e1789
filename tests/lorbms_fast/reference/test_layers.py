"""The yardstick's layers, made of torch's own, against the definitions."""

import pytest
import torch

from lorbms_fast.kernels import GroupedBatchNorm2d
from lorbms_fast.kernels.grouped_batch_norm.reference import grouped_batch_norm
from lorbms_fast.kernels.instance_norm.reference import instance_norm_relu as defined
from lorbms_fast.reference.layers import instance_norm_relu


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + 2 * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()


def test_instance_norm_and_its_gradient():
    x, weight = draw(3, 5, 4, 6), draw(3, 5, 4, 6, seed=1).detach()
    found, expected = instance_norm_relu(x), defined(x, 1e-9)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_an_almost_constant_map_is_normalized_with_the_spec_s_eps():
    x = torch.tensor([[[[1e-5, -1e-5]]]], dtype=torch.float64)
    assert instance_norm_relu(x).max().item() == pytest.approx(1e-5 / (1e-10 + 1e-9) ** 0.5)


def test_batch_norm_its_gradients_and_its_running_averages():
    layer = GroupedBatchNorm2d(4).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(draw(4, seed=2))
    x, weight = draw(3, 4, 2, 5), draw(3, 4, 2, 5, seed=1).detach()
    inputs = [x, layer.gamma, layer.beta]
    expected, means, variances = grouped_batch_norm(*inputs, groups=1)
    found = layer(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    gradients = (torch.autograd.grad((y * weight).sum(), inputs) for y in (found, expected))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.running_mean, 0.01 * means[0].detach())
    torch.testing.assert_close(layer.running_var, 0.99 + 0.01 * variances[0].detach())
    before = layer.running_mean.clone()
    layer.requires_grad_(False)(x)
    assert torch.equal(layer.running_mean, before)
