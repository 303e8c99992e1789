"""The 3x3 convolution behind a norm and ReLU, where Winograd's loops run and where torch's own does, in float64."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from lorbms_fast.kernels._common.of_torch import has_amx
from lorbms_fast.kernels._common.winograd import cpp
from lorbms_fast.kernels.densenet_block import convolution as of_layers
from lorbms_fast.kernels.densenet_block.norms import Norm
from lorbms_fast.kernels.densenet_block.products import form_for
from tests.kernels.threads import the_same_by_threads

# Of bfloat16: results are rounded once, and gradients of weights in their own dtype.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
FORMS = [(16, 24, True), (48, 32, True), (272, 7, True), (656, 3, False), (12, 9, False), (16, 2, False)]


def stack(C, side, dtype, draw):
    """Some of wider maps, as columns of a matrix."""
    matrix = (torch.randn(2 * side * side, C + 5, generator=draw) + 0.5).to(dtype)
    return matrix.view(2, side, side, -1).permute(0, 3, 1, 2)[:, :C]


def norm_of(C, draw):
    mean, bias = torch.randn(2, C, generator=draw)
    weight = torch.linspace(-1, 1.5, C)
    weight[1] = 0
    return Norm(mean / 3, torch.rand(C, generator=draw) + 0.5, weight, bias, 1e-5)


def close(found, expected, dtype):
    assert (found.double() - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("C", "side", "loops"), FORMS)
def test_is_the_definitions(dtype, C, side, loops):
    draw = torch.Generator().manual_seed(0)
    x, grad = stack(C, side, dtype, draw), stack(16, side, dtype, draw).contiguous(memory_format=torch.channels_last)
    bias, norm, form = torch.randn(16, generator=draw), norm_of(C, draw), form_for(x[0, :, 0].t())
    for lies, of_weight in product(("rows", "channels last", "turned"), {dtype, torch.float32}):
        W = (torch.randn(16, C, 3, 3, generator=draw) / C**0.5).to(of_weight)
        if lies != "rows":
            W = W.to(memory_format=torch.channels_last) if lies == "channels last" else W.mT
        if cpp.runs() and (dtype == torch.float32 or not has_amx()):
            few = dtype == torch.bfloat16 and C % 16 == 0 and side >= 3
            assert of_layers._takes(x, W) == ((loops or few) and lies != "turned")
        exact = [t.double().requires_grad_() for t in (x, W.to(dtype), bias.to(dtype), norm.weight, norm.bias)]
        mean, var = (t.double() for t in norm[:2])
        a = F.batch_norm(exact[0], mean, var, *exact[3:], False, 0.0, norm.eps).relu()
        expected = F.conv2d(a, *exact[1:3], padding=1)
        to_a, to_x, to_W, to_bias, to_weight, to_shift = torch.autograd.grad(expected, [a, *exact], grad.double())

        out = stack(16, side, dtype, draw)
        of_layers.convolution(form, x, norm, W, bias, out)
        close(out, expected, dtype)
        for asked in product((True, False), repeat=2):
            found = of_layers.backward_weight(form, grad, x, norm, W, *asked)
            for f, e, needed in zip(found, (to_W, to_bias), asked, strict=True):
                if needed:  # torch's own may give others too
                    close(f, e, dtype)
        close(of_layers.backward_input(grad, x, W), to_a, dtype)
        sums, add_to = torch.ones(2, C), stack(C, side, dtype, draw)
        before = add_to._base.clone()
        of_layers.backward_norm(form, grad, x, norm, W, *sums, add_to)
        close(sums[0], 1 + to_shift, dtype)
        close((sums[1] - 1) * (norm.var + norm.eps).rsqrt(), to_weight, dtype)
        close(add_to, before.view(2, side, side, -1).permute(0, 3, 1, 2)[:, :C].double() + to_x, dtype)
        assert torch.equal(add_to._base[..., C:], before[..., C:])  # beside them


@pytest.mark.skipif(not cpp.runs(), reason="no AVX2, or no C++ compiler")
@pytest.mark.parametrize(
    ("maps", "O", "loops"),
    [
        ((64, 128, 1, 1), 32, False),  # one row or column alone
        ((40, 512, 1, 2), 16, False),
        ((64, 256, 1, 4), 48, False),
        ((60, 128, 2, 1), 32, False),
        ((64, 128, 2, 2), 32, True),
        ((64, 1024, 2, 2), 16, False),  # many channels of many tiles
        ((9, 512, 2, 2), 16, True),
        ((8, 128, 2, 2), 32, False),  # fewer positions than torch has products for
    ],
)
def test_few_positions(maps, O, loops):
    assert of_layers.faster(torch.empty(maps), torch.empty(O, maps[1], 3, 3)) == loops


def test_threads_decide_nothing():
    draw = torch.Generator().manual_seed(0)
    x, grad = stack(48, 40, torch.bfloat16, draw), stack(16, 40, torch.bfloat16, draw)
    W, norm = torch.randn(16, 48, 3, 3, generator=draw), norm_of(48, draw)
    form, grad = form_for(x[0, :, 0].t()), grad.contiguous(memory_format=torch.channels_last)
    if not of_layers._takes(x, W):
        pytest.skip("no AVX2, no C++ compiler, or AMX")

    def outcome():
        sums, out = torch.zeros(2, 48), torch.empty_like(grad)
        add_to = stack(48, 40, torch.bfloat16, torch.Generator().manual_seed(1))
        of_layers.backward_norm(form, grad, x, norm, W, *sums, add_to)
        of_layers.convolution(form, x, norm, W, None, out)
        return sums, add_to, out, *of_layers.backward_weight(form, grad, x, norm, W, True, True)

    the_same_by_threads(outcome)
