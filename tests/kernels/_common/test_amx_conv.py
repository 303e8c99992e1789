"""Convolutions by the processor's tiles against the definition in float64; on other processors skipped."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lorbms_fast.kernels._common import amx_conv
from tests.kernels.threads import threads

CHANNELS_LAST = torch.channels_last
LAST = 1, 0, 1, 0, 0, 0
"""What Winograd's loops are told of a convolution last: 3x3 taps in a slice, padded by one."""
channels = st.sampled_from([16, 32, 48, 144])

pytestmark = pytest.mark.skipif(not amx_conv.runs(torch.bfloat16), reason="no AMX here")


def drawn(*shape: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.bfloat16().contiguous(memory_format=CHANNELS_LAST)


def run(name: str, x: torch.Tensor, y: torch.Tensor, *others: int) -> None:
    amx_conv.LOOPS.run(name, (x, y), 8, 1, x.shape[-1], y.shape[1], *LAST, *others)


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 5), C=channels, O=channels, height=st.integers(1, 20), width=st.integers(1, 70),
    relu=st.booleans(), add=st.booleans(), biased=st.booleans(),
)  # fmt: skip
def test_result_and_gradient(n, C, O, height, width, relu, add, biased):
    in_stack, out_stack = drawn(n, C + 32, height, width, seed=0), drawn(n, O + 48, height, width, seed=1)
    x, y, weight, bias = (
        in_stack[:, 16 : 16 + C],
        out_stack[:, 32 : 32 + O],
        drawn(O, C, 3, 3, seed=2),
        drawn(O, 1, 1, 1, seed=3),
    )
    around = out_stack.clone()
    received = (x.double().relu() if relu else x.double()).requires_grad_()
    of_bias = bias.double().flatten() if biased else None
    made = F.conv2d(received, weight.double(), of_bias, padding=1)
    expected = y.double() + made if add else made
    results = []
    for count in (1, 3):
        out = around.clone()
        with threads(count):
            run("conv", x, out[:, 32 : 32 + O], relu, weight.data_ptr(), bias.data_ptr() if biased else 0, add)
        results.append(out)
    assert torch.equal(*results)
    found = results[0][:, 32 : 32 + O]
    assert (found - expected).abs().max() <= 2**-8 * max(expected.abs().max(), made.abs().max())
    assert torch.equal(results[0][:, :32], around[:, :32])
    assert torch.equal(results[0][:, 32 + O :], around[:, 32 + O :])

    (to_x,) = torch.autograd.grad(made, received, y.double())
    around, found = in_stack.clone(), in_stack.clone()
    run("conv_backward_input", found[:, 16 : 16 + C], y, weight.data_ptr())
    assert (found[:, 16 : 16 + C] - to_x).abs().max() <= 2**-8 * to_x.abs().max()
    assert torch.equal(found[:, :16], around[:, :16])
    assert torch.equal(found[:, 16 + C :], around[:, 16 + C :])


def test_what_is_no_number_reaches_its_neighbours_alone():
    x, weight = drawn(2, 16, 9, 40, seed=0), drawn(16, 16, 3, 3, seed=1)
    x[0, 3, 4, 5], x[1, 3, 8, 39] = torch.nan, torch.inf
    y = torch.empty_like(x)
    run("conv", x, y, False, weight.data_ptr(), 0, False)
    assert torch.equal(y.isfinite(), F.conv2d(x.float(), weight.float(), padding=1).isfinite())


@pytest.mark.parametrize("shape", [(0, 16, 4, 4), (2, 16, 0, 4)])
def test_no_positions(shape):
    x, weight = drawn(*shape, seed=0), drawn(16, 16, 3, 3, seed=1)
    run("conv", x, torch.empty_like(x), False, weight.data_ptr(), 0, False)
    run("conv_backward_input", torch.empty_like(x), x, weight.data_ptr())
