"""The resize convolution against the definition in float64, outputs and gradients."""

import pytest
from hypothesis import given

from bench.gpu.tape import Tape
from lorbms_fast import kernels
from tests.kernels.forms import assert_forms_agree, draw, fast, size


@fast
@given(size, size, size, size, size)
def test_resize_conv(n, channels, out, height, width):
    x, weight = draw(n, channels, height, width), draw(out, channels, 3, 3, seed=1)
    assert_forms_agree(lambda impl: kernels.resize_conv(x, weight, impl), [x, weight])


@pytest.mark.parametrize("layer", [kernels.resize_conv, kernels.upsample_conv])
def test_only_the_first_call_copies_from_the_host(layer):
    x, weight = draw(2, 3, 4, 4), draw(5, 3, 3, 3, seed=1)
    layer(x, weight, impl="fused")
    Tape(list).record(lambda: layer(x, weight, impl="fused"))  # refuses what no graph can hold
