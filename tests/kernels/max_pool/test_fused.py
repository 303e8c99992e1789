"""2x2 max pooling against the definition in float64, outputs and gradients."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast import kernels
from tests.kernels.forms import draw, fast, results, size


@fast
@given(size, size, st.integers(2, 7), st.integers(2, 7), st.booleans(), st.booleans())
def test_max_pool(n, channels, height, width, channels_last, ties):
    x = draw(n, channels, height, width)
    if channels_last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    if ties:
        x = x.detach().round().requires_grad_()
    found, expected = (results(kernels.max_pool2x2(x, impl), [x]) for impl in ("fused", "reference"))
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
