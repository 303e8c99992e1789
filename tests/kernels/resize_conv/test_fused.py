"""The resize convolution against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given

from bench.gpu.tape import Tape
from lorbms_fast import kernels
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels.resize_conv import cpp, fused
from tests.kernels.forms import assert_forms_agree, draw, fast, size


@pytest.mark.parametrize("native", [True, False], ids=["four products", "four convolutions"])
@fast
@given(n=size, channels=size, out=size, height=size, width=size)
def test_resize_conv(native, n, channels, out, height, width):
    x, weight = draw(n, channels, height, width), draw(out, channels, 3, 3, seed=1)
    with native_loops(native):
        assert_forms_agree(lambda impl: kernels.resize_conv(x, weight, impl), [x, weight])


@pytest.mark.parametrize("native", [True, False], ids=["four products", "four convolutions"])
def test_a_penalty_of_gradients(native):
    x, weight = draw(2, 3, 2, 3), draw(5, 3, 3, 3, seed=1)

    def penalty(x, weight):
        y = torch.tanh(kernels.resize_conv(x, weight, "fused"))
        grads = torch.autograd.grad(y.square().sum(), (x, weight), create_graph=True)
        return sum(g.square().sum() for g in grads)

    with native_loops(native):
        assert torch.autograd.gradcheck(penalty, (x, weight))


@pytest.mark.parametrize(
    ("weights", "taps"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float32, torch.bfloat16),
        (torch.float32, torch.float16),
    ],
)
@pytest.mark.parametrize(("out", "channels"), [(5, 3), (48, 35), (1, 2)])
@pytest.mark.skipif(not cpp.LOOPS.built(), reason="no C++ compiler")
def test_taps_are_folded_by_loops_as_by_a_product(weights, taps, out, channels):
    whole = draw(out, channels + 2, 3, 3).detach().to(weights, memory_format=torch.channels_last)
    gradient = draw(9, out, channels, seed=1).detach().to(taps).transpose(0, 1)

    def folded(native):
        weight = whole[:, 1:-1].detach().requires_grad_()
        with native_loops(native):
            assert cpp.take(weight, taps) == native
            found = fused.fold(weight, taps)
            found.backward(gradient)
        return found, weight.grad

    for found, expected in zip(folded(True), folded(False), strict=True):
        assert found.dtype == expected.dtype
        tolerance = 8 * torch.finfo(found.dtype).eps
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


@pytest.mark.parametrize("lowered", [False, True], ids=["float32", "bfloat16"])
def test_hooks_that_lay_saved_tensors_otherwise(lowered):
    torch.manual_seed(0)
    layer, found = kernels.ResizeConv2d(16, 16).to(memory_format=torch.channels_last), []
    for kept in (lambda t: t, lambda t: t.contiguous().clone()):
        with torch.autograd.graph.saved_tensors_hooks(kept, lambda t: t), torch.autocast("cpu", enabled=lowered):
            y = layer(draw(2, 16, 3, 4).detach().float())
        found += torch.autograd.grad(y.float().square().sum(), layer.weight)
    torch.testing.assert_close(*found)
    assert found[0].stride() == layer.weight.stride()


def test_a_weight_may_change_between_fold_and_backward():
    weight = draw(4, 3, 3, 3).detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    taps = fused.fold(weight, weight.dtype)
    (expected,) = torch.autograd.grad(taps.sum(), weight, retain_graph=True)
    with torch.no_grad():
        weight.zero_()
    assert torch.equal(torch.autograd.grad(taps.sum(), weight)[0], expected)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (5, 5), (1, 9), (3,)], ids=str)
@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_other_taps_are_refused(impl, kernel):
    weight = torch.zeros(4, 16, *kernel)
    if len(kernel) == 2:
        weight = weight.to(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match=r"\(O, C, 3, 3\)"):
        kernels.resize_conv(torch.zeros(1, 16, 4, 4), weight, impl)


def test_gradients_of_many_foldings_at_once():
    weight = draw(3, 2, 3, 3).detach().float().contiguous(memory_format=torch.channels_last).requires_grad_()
    taps = fused.fold(weight, torch.float32)
    probes = draw(4, *taps.shape, seed=1).detach().float()
    (found,) = torch.autograd.grad(taps, weight, probes, retain_graph=True, is_grads_batched=True)
    expected = [torch.autograd.grad(taps, weight, probe, retain_graph=True)[0] for probe in probes]
    torch.testing.assert_close(found, torch.stack(expected))


def test_a_penalty_of_folded_taps():
    weight = draw(3, 2, 3, 3).detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda W: fused.fold(W, W.dtype), (weight,))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(dtype):
    x, weight = draw(2, 16, 5, 4).detach(), draw(32, 16, 3, 3, seed=1).detach()
    expected = kernels.resize_conv(x, weight, "reference")
    found = kernels.resize_conv(x.to(dtype), weight.to(dtype), "fused")
    assert (found - expected).abs().max() <= 2 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize("layer", [kernels.resize_conv, kernels.upsample_conv])
def test_only_the_first_call_copies_from_the_host(layer):
    x, weight = draw(2, 3, 4, 4), draw(5, 3, 3, 3, seed=1)
    layer(x, weight, impl="fused")
    Tape(list).record(lambda: layer(x, weight, impl="fused"))  # refuses what no graph can hold
