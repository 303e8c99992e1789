"""The coordinate convolution against the definition in float64, outputs and gradients."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast import kernels
from tests.kernels.forms import draw, fast, size


@fast
@given(size, size, size, st.integers(1, 7), st.integers(2, 7))
def test_coord_conv_adds_a_ramp_along_each_axis(n, channels, out, height, width):
    x, weight, bias = draw(n, channels, height, width), draw(out, channels + 2, 1, 1, seed=1), draw(out, seed=2)
    across = torch.tensor([-1 + 2 * i / (width - 1) for i in range(width)], dtype=torch.float64)
    down = torch.tensor([-1 + 2 * i / (height - 1) if height > 1 else -1 for i in range(height)], dtype=torch.float64)
    per_axis = (
        weight[:, channels, 0, 0, None, None] * across + weight[:, channels + 1, 0, 0, None, None] * down[:, None]
    )
    expected = torch.einsum("oc,nchw->nohw", weight[:, :channels, 0, 0], x) + per_axis + bias[:, None, None]
    torch.testing.assert_close(kernels.coord_conv2d(x, weight, bias), expected)
