"""The 3x3 convolution of activated maps, where Winograd's loops run and where torch's own does, in float64."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from lorbms_fast.kernels._common.winograd import cpp
from lorbms_fast.kernels.densenet_block import convolution as of_layers

# Of bfloat16: results are rounded once, and gradients of weights in their own dtype.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("C", "side", "loops"), [(16, 24, True), (48, 32, True), (12, 9, False), (16, 2, False)])
def test_is_the_definitions(dtype, C, side, loops):
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(2, C, side, side, generator=draw).relu().to(dtype, memory_format=torch.channels_last)
    grad = torch.randn(2, 16, side, side, generator=draw).to(dtype, memory_format=torch.channels_last)
    bias = torch.randn(16, generator=draw)
    for lies, of_weight in product(("rows", "channels last", "turned"), {dtype, torch.float32}):
        W = (torch.randn(16, C, 3, 3, generator=draw) / C**0.5).to(of_weight)
        if lies != "rows":
            W = W.to(memory_format=torch.channels_last) if lies == "channels last" else W.mT
        if cpp.runs() and dtype == torch.float32:
            assert of_layers._takes(a, W) == (loops and lies != "turned")
        exact = [t.double().requires_grad_() for t in (a, W.to(dtype), bias.to(dtype))]
        expected = F.conv2d(*exact, padding=1)
        found = of_layers.convolution(a, W, bias)
        wanted = torch.autograd.grad(expected, exact, grad.double())
        for to_W, to_bias in product((True, False), repeat=2):
            gradients = of_layers.convolution_backward(grad, a, W, to_W, to_bias)
            for f, e, asked in zip(gradients, wanted, (True, to_W, to_bias), strict=True):
                if asked:  # torch's own may give others too
                    assert (f.double() - e).abs().max() <= TOLERANCE[dtype] * e.abs().max()
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert (found.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()
