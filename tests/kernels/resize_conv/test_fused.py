"""The resize convolution against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given

from bench.gpu.tape import Tape
from lorbms_fast import kernels
from lorbms_fast.kernels._common.cpp import native_loops
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
