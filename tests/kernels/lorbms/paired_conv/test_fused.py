"""The paired convolution against the definition in float64, outputs and gradients."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast.kernels import lorbms
from tests.kernels.forms import assert_forms_agree, draw, fast, size


@fast
@given(size, st.integers(1, 4), size, size, size, st.integers(1, 3), st.integers(1, 2))
def test_paired_conv(n, groups, channels, others, out, k, stride):
    shared, each = draw(n, channels, 5, 4), draw(groups * n, others, 5, 4, seed=1)
    weight, bias = draw(out, channels + others, k, k, seed=2), draw(out, seed=3)
    wanted = [shared, each, weight, bias]
    assert_forms_agree(lambda impl: lorbms.paired_conv2d(shared, each, weight, bias, stride, impl), wanted)


def test_gradients_of_gradients():
    inputs = [draw(2, 1, 3, 3), draw(4, 2, 3, 3, seed=1), draw(2, 3, 2, 2, seed=2), draw(2, seed=3)]
    assert torch.autograd.gradgradcheck(lorbms.paired_conv2d, inputs)
