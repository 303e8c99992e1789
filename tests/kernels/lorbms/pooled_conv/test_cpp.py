"""The pooled convolution's gradients by C++ loops, in float32 and bfloat16, against the definition in float64."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lorbms_fast.kernels.lorbms.pooled_conv import cpp, fused

CHANNELS_LAST = torch.channels_last
channels = st.sampled_from([16, 48, 240])
size = st.integers(2, 13)


def drawn(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2**-8)], ids=str)
@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 5), C=channels, O=channels, height=size, width=size, relu=st.booleans(), beside=st.booleans())
def test_gradients(dtype, tolerance, n, C, O, height, width, relu, beside):
    stack = drawn(n, C + 32, height, width, seed=0, dtype=dtype).contiguous(memory_format=CHANNELS_LAST)
    x = stack[:, 16 : 16 + C] if beside else stack[:, :C].contiguous(memory_format=CHANNELS_LAST)
    weight, bias = drawn(O, C, 1, 1, seed=1, dtype=dtype), drawn(O, seed=2, dtype=dtype)
    y, places = fused.convolved_and_pooled(torch.relu(x) if relu else x, weight, bias)
    assume(places[0, 0].numel() > 1)  # one square lies in memory in any order
    if not cpp.take(x, weight, places):
        pytest.skip("no C++ compiler, or AMX")
    grad = drawn(*y.shape, seed=3, dtype=dtype)

    exact = [t.double().requires_grad_() for t in (torch.relu(x) if relu else x, weight, bias)]
    rows, columns = 2 * torch.arange(height // 2)[:, None] + places // 2, 2 * torch.arange(width // 2) + places % 2
    z = F.conv2d(*exact).flatten(2).gather(2, (rows * width + columns).long().flatten(2))
    expected = torch.autograd.grad(z, exact, grad.flatten(2).double())

    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(fused.unpooled_backward(grad, x, weight, places, (True, True, True), relu))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *found))
    for f, e in zip(found[0], expected, strict=True):
        assert f.dtype == dtype
        assert (f - e).abs().max() <= tolerance * e.abs().max()


def test_what_was_not_asked_for_is_not_computed():
    x, weight = drawn(1, 16, 4, 4, seed=0, dtype=torch.float32), drawn(16, 16, 1, 1, seed=1, dtype=torch.float32)
    x = x.contiguous(memory_format=CHANNELS_LAST)
    y, places = fused.convolved_and_pooled(x, weight, torch.zeros(16))
    assert fused.unpooled_backward(y, x, weight, places, (False, False, False)) == (None, None, None)
