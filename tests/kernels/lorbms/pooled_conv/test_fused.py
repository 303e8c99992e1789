"""The pooled convolution against the definition in float64, outputs and gradients."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.kernels import lorbms
from lorbms_fast.kernels.lorbms.pooled_conv import cpp, fused
from tests.kernels.forms import draw, fast, results, size


@fast
@given(size, size, size, st.integers(2, 7), st.integers(2, 7), st.booleans(), st.booleans(), st.booleans())
def test_pooled_conv(n, channels, out, height, width, channels_last, ties, small):
    x, weight, bias = draw(n, channels, height, width), draw(out, channels, 1, 1, seed=1), draw(out, seed=2)
    if ties:
        x, weight = (t.detach().round().requires_grad_() for t in (x, weight))
    arranged = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    wanted = [x, weight, bias]
    with patch.object(fused, "SMALL", fused.SMALL if small else 0):
        found, expected = (
            results(lorbms.pooled_conv2d(arranged, weight, bias, impl), wanted) for impl in ("fused", "reference")
        )
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-12, atol=1e-12)


def test_small_maps_go_to_the_loops_where_these_multiply_less_by_more_than_they_cost():
    if not cpp.LOOPS.built():
        pytest.skip("no C++ compiler")
    weight, bias = draw(16, 16, 1, 1), draw(16, seed=1)
    for dtype, loops in ((torch.float32, True), (torch.bfloat16, False)):
        x = draw(2, 16, 8, 8, seed=2).contiguous(memory_format=torch.channels_last)
        y = lorbms.pooled_conv2d(x.to(dtype), weight.to(dtype), bias.to(dtype), "fused")
        assert (type(y.grad_fn).__name__ == "_PooledConvBackward") == loops


@pytest.mark.parametrize("shapes", [((32, 32, 1, 1), (32,)), ((32, 64, 1, 1), (32,)), ((32, 48, 1, 1), (16,))], ids=str)
def test_sizes_that_do_not_fit_are_refused(shapes):
    x = torch.randn(2, 48, 16, 16).contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn(shape) for shape in shapes)
    with pytest.raises(ValueError, match="has the shape"):
        lorbms.pooled_conv2d(x, weight, bias)
