"""A convolution behind enlarging by two, against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lorbms_fast import kernels
from lorbms_fast.kernels._common.winograd import cpp as winograd
from tests.kernels.forms import assert_forms_agree, draw, fast, size

MODES = ("zeros", "reflect", "replicate", "circular")


@fast
@given(size, size, size, size, size, st.booleans(), st.booleans(), st.sampled_from(MODES))
def test_upsample_conv(n, channels, out, height, width, channels_last, shifted, mode):
    x, weight, bias = draw(n, channels, height, width), draw(out, channels, 3, 3, seed=1), draw(out, seed=2)
    arranged = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    wanted = [x, weight, bias] if shifted else [x, weight]
    assert_forms_agree(
        lambda impl: kernels.upsample_conv(arranged, weight, bias if shifted else None, mode, impl), wanted
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_layer_is_torchs_two(mode, dtype):
    torch.manual_seed(0)
    ours = kernels.UpsampleConv2d(5, 4, padding_mode=mode)
    theirs = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(5, 4, 3, padding=1, padding_mode=mode)).to(dtype)
    theirs[1].load_state_dict(ours.state_dict())
    ours.to(dtype)
    x = torch.randn(2, 5, 4, 7, dtype=dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    for batch in (x, x[0], x.contiguous(memory_format=torch.channels_last)):
        found, expected = ours(batch), theirs(batch)
        if mode != "circular":  # of which torch's padding leaves the layout
            assert found.stride() == expected.stride()
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(x).dtype == theirs(x).dtype


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("mode", MODES)
def test_large_maps_are_winograds(mode, channels_last):
    if not winograd.runs():
        pytest.skip("no AVX2, or no C++ compiler")
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(2, 32, 24, 20).to(memory_format=layout).requires_grad_()
    weight, bias = torch.randn(48, 32, 3, 3).to(memory_format=layout).requires_grad_(), torch.randn(48).requires_grad_()
    found, expected = (kernels.upsample_conv(x, weight, bias, mode, impl) for impl in ("fused", "reference"))
    if mode != "circular":  # which loops do not see
        assert type(found.grad_fn).__name__ == "_ConvolutionBackward"
        assert found.stride() == expected.stride()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    by = [torch.autograd.grad(y.sin().sum(), (x, weight, bias), create_graph=True) for y in (found, expected)]
    for ours, theirs in zip(*by, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-2)
    changed = [torch.autograd.grad(sum(g.square().sum() for g in gradients), x)[0] for gradients in by]
    torch.testing.assert_close(*changed, rtol=1e-3, atol=1e-3 * changed[1].abs().max().item())
    for ours, theirs in zip(
        *(torch.func.jvp(lambda x, impl=impl: kernels.upsample_conv(x, weight, bias, mode, impl), (x,), (x.cos(),))
          for impl in ("fused", "reference")), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_an_unknown_padding_is_refused():
    with pytest.raises(ValueError, match="padding_mode 'same': choose one of zeros"):
        kernels.upsample_conv(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3), None, "same")
