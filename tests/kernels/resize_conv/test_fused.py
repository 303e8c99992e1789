"""The resize convolution against the definition in float64, outputs and gradients."""

from hypothesis import given

from lorbms_fast import kernels
from tests.kernels.forms import assert_forms_agree, draw, fast, size


@fast
@given(size, size, size, size, size)
def test_resize_conv(n, channels, out, height, width):
    x, weight = draw(n, channels, height, width), draw(out, channels, 3, 3, seed=1)
    assert_forms_agree(lambda impl: kernels.resize_conv(x, weight, impl), [x, weight])
