"""Passes of a network of the package's layers, and the layers that only networks use."""

import pytest
import torch
from torch import nn

from lorbms_fast import kernels
from lorbms_fast.kernels import DenseBlock, GroupedBatchNorm2d, ResizeConv2d, SpectralConv2d, passes
from lorbms_fast.kernels.grouped_batch_norm import follow
from lorbms_fast.kernels.lorbms import SpectralResizeConv2d
from lorbms_fast.kernels.passes import constant
from lorbms_fast.kernels.spectral_norm import modules


def network() -> nn.Sequential:
    torch.manual_seed(0)
    spectral = DenseBlock(6, num_layers=3, growth_rate=2, conv=SpectralConv2d)
    layers = [nn.Conv2d(3, 4, 3), SpectralResizeConv2d(4, 6), spectral, SpectralConv2d(12, 5, 3), ResizeConv2d(5, 2)]
    return nn.Sequential(*layers, DenseBlock(2, num_layers=2, growth_rate=3, activation="instance_norm_relu")).double()


def test_what_has_no_passes_is_told():
    with pytest.raises(TypeError, match="not of a function"):
        passes(network, 1)
    with pytest.raises(ValueError, match="-1 passes"):
        passes(network(), -1)


@pytest.mark.parametrize("impl", ["reference", "fused"])
def test_passes_are_calls(impl):
    model, images = network(), [torch.randn(n, 3, 6, 7, dtype=torch.float64) for n in (2, 1)]
    results = []
    with kernels.use_impl(impl):
        for runs in ([model, model], passes(model, 2)):
            ys = [run(x) for run, x in zip(runs, images, strict=True)]
            results.append([*ys, *torch.autograd.grad(sum(y.sin().sum() for y in ys), list(model.parameters()))])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_a_weight_of_two_layers_is_read_by_both():
    model, x = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)), torch.randn(1, 3, 2, 2)
    model[1].weight = model[0].weight
    with torch.autocast("cpu", torch.bfloat16):
        (run,) = passes(model, 1)
        assert torch.equal(run(x), model(x))


def test_many_gradients_at_once():
    model, x = network(), torch.randn(1, 3, 6, 7, dtype=torch.float64)
    ys = [run(x) for run in passes(model, 2)]
    probes, wanted = [torch.randn_like(ys[0]) for _ in range(2)], list(model.parameters())
    found = torch.autograd.grad(sum(ys), wanted, torch.stack(probes), retain_graph=True, is_grads_batched=True)
    for i, probe in enumerate(probes):
        expected = torch.autograd.grad(sum(ys), wanted, probe, retain_graph=True)
        for f, e in zip(found, expected, strict=True):
            torch.testing.assert_close(f[i], e, rtol=1e-9, atol=1e-9)


def test_what_parameters_decide_is_made_once_for_all_passes(monkeypatch):
    made = []
    monkeypatch.setattr(modules, "spectral_norm_all", lambda Ws, *_: made.append(len(Ws)) or list(Ws))
    model = network()
    for run in passes(model, 3):
        run(torch.randn(1, 3, 6, 6, dtype=torch.float64))
    assert made == [5]
    assert all(getattr(layer, "packed", None) is None for layer in model)  # outside of a pass a layer packs by itself


def test_another_parameter_in_its_place_is_noticed():
    model, x = network().requires_grad_(False), torch.randn(1, 3, 6, 6, dtype=torch.float64)
    with constant(model):
        run, again = passes(model, 2)
        y = run(x)
        model[0].weight = nn.Parameter(2 * model[0].weight, requires_grad=False)
        with pytest.raises(RuntimeError, match="parameters have changed"):
            again(x)
        assert not torch.equal(passes(model, 1)[0](x), y)


def test_what_constant_parameters_decide_is_made_once_for_a_block(monkeypatch):
    made, x = [], torch.randn(1, 3, 6, 6, dtype=torch.float64)
    real = modules.spectral_norm_all
    monkeypatch.setattr(modules, "spectral_norm_all", lambda Ws, *rest: made.append(len(Ws)) or real(Ws, *rest))
    model = network().requires_grad_(False)
    with constant(model):
        ys = [passes(model, 1)[0](x) for _ in range(2)]
        assert made == [5]
        assert torch.equal(*ys)
        model[0].weight.mul_(2)
        assert not torch.equal(passes(model, 1)[0](x), ys[0])
        assert made == [5, 5]
    passes(model, 1)
    assert made == [5, 5, 5]


def test_a_trained_pass_reads_copies_that_were_made_of_constants(monkeypatch):
    model, x = network().float(), torch.randn(1, 3, 6, 6)
    copied = []
    monkeypatch.setattr(
        torch, "_foreach_copy_", lambda to, of, real=torch._foreach_copy_: copied.append(of) or real(to, of)
    )

    def gradients():
        copied.clear()
        (run,) = passes(model, 1)
        copies = [weight.shape for weights in copied for weight in weights]
        of_forward = model[0].weight.shape in copies
        return of_forward, torch.autograd.grad(run(x).square().mean(), list(model.parameters()))

    with torch.autocast("cpu", torch.bfloat16):
        made, expected = gradients()
        assert made
        with constant(model):
            model.requires_grad_(False)
            passes(model, 1)[0](x)
            model.requires_grad_(True)
            for _ in range(2):  # each has gradients of its own
                made, found = gradients()
                assert not made
                assert all(map(torch.equal, found, expected))
            with torch.no_grad():
                model[0].weight.mul_(2)
            assert gradients()[0]


def test_batch_norm_of_groups_is_one_after_the_other():
    x = torch.rand(3 * 4, 5, 6, 6, dtype=torch.float64) - 0.2
    norms = [GroupedBatchNorm2d(5, relu_first=first).double() for first in (True, False, True)]
    expected = torch.cat([norms[1](part.relu()) for part in x.chunk(3)])
    torch.testing.assert_close(norms[0](x, groups=3), expected)
    found = []
    torch.testing.assert_close(norms[2](x, groups=3, found=found), expected)
    assert norms[2].running_mean.abs().max() == 0
    follow(found)
    for norm in norms[::2]:
        torch.testing.assert_close(norm.running_mean, norms[1].running_mean)
        torch.testing.assert_close(norm.running_var, norms[1].running_var)
