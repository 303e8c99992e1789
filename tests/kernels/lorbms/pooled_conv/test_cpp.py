"""The pooled convolution and its gradients by C++ loops, in float32 and bfloat16, against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lorbms_fast.kernels._common import amx_conv
from lorbms_fast.kernels.lorbms.pooled_conv import cpp, fused
from tests.kernels.threads import the_same_by_threads

CHANNELS_LAST = torch.channels_last
channels = st.sampled_from([16, 48, 240])
size = st.integers(2, 13)


def drawn(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.fixture(params=[False, True], ids=["vectors", "tiles"])
def by_tiles(request):
    """Let tiles multiply bfloat16, or vectors where there are tiles, too."""
    if request.param and not amx_conv.runs(torch.bfloat16):
        pytest.skip("no AMX here")
    if not request.param:
        request.getfixturevalue("no_tiles")
    return request.param


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)], ids=str)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(n=5, C=16, O=48, height=41, width=40, relu=True, beside=True)  # as many squares as are summed in parts
@given(n=st.integers(1, 5), C=channels, O=channels, height=size, width=size, relu=st.booleans(), beside=st.booleans())
def test_result_and_gradients(dtype, tolerance, by_tiles, n, C, O, height, width, relu, beside):
    stack = drawn(n, C + 32, height, width, seed=0, dtype=dtype).contiguous(memory_format=CHANNELS_LAST)
    x = stack[:, 16 : 16 + C] if beside else stack[:, :C].contiguous(memory_format=CHANNELS_LAST)
    weight, bias = drawn(O, C, 1, 1, seed=1, dtype=dtype), drawn(O, seed=2, dtype=dtype)
    if not cpp.take(x, weight):
        pytest.skip("no C++ compiler")
    exact = [t.double().requires_grad_() for t in (x, weight, bias)]
    maps = F.conv2d(exact[0].relu() if relu else exact[0], *exact[1:]).flatten(2)

    def at(places):
        rows, columns = 2 * torch.arange(height // 2)[:, None] + places // 2, 2 * torch.arange(width // 2) + places % 2
        return maps.gather(2, (rows * width + columns).long().flatten(2)).view_as(places)

    def outcome():
        y, places = fused.convolved_and_pooled(x, weight, bias, relu)
        grad = drawn(*y.shape, seed=3, dtype=dtype)
        return y, places, grad, *fused.unpooled_backward(grad, x, weight, places, (True, True, True), relu)

    y, places, grad, *gradients = the_same_by_threads(outcome, (1, 3))

    expected = F.max_pool2d(maps.unflatten(2, (height, width)), 2)
    slack = tolerance * maps.abs().max()
    assert (y - expected).abs().max() <= slack
    assert (at(places) - expected).abs().max() <= slack  # one of several that are nearly the greatest
    of_inputs = torch.autograd.grad(at(places), exact, grad.double())
    for f, e in zip(gradients, of_inputs, strict=True):
        assert f.dtype == dtype
        assert (f - e).abs().max() <= tolerance * e.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_first_of_equal_values_counts_and_what_is_not_a_number_before_all(dtype):
    x = torch.ones(1, 16, 4, 4).contiguous(memory_format=CHANNELS_LAST)
    x[0, :, 3, 0], x[0, :, 0, 3], x[0, :, 3, 3] = torch.nan, -torch.inf, -torch.nan
    weight, bias = torch.ones(16, 16, 1, 1).to(dtype), torch.zeros(16).to(dtype)
    if not cpp.take(x.to(dtype), weight):
        pytest.skip("no C++ compiler")
    y, places = fused.convolved_and_pooled(x.to(dtype), weight, bias, relu=True)
    assert places.unique(dim=1).flatten().tolist() == [0, 0, 2, 3]
    assert y.isnan().unique(dim=1).flatten().tolist() == [False, False, True, True]
    assert y[0, :, 0].unique().tolist() == [16]


def test_what_was_not_asked_for_is_not_computed():
    x, weight = drawn(1, 16, 4, 4, seed=0, dtype=torch.float32), drawn(16, 16, 1, 1, seed=1, dtype=torch.float32)
    x = x.contiguous(memory_format=CHANNELS_LAST)
    y, places = fused.convolved_and_pooled(x, weight, torch.zeros(16))
    assert fused.unpooled_backward(y, x, weight, places, (False, False, False)) == (None, None, None)
