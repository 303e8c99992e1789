"""Instance norm against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorbms_fast import kernels
from lorbms_fast.kernels._common.activation import IDENTITY, RELU
from lorbms_fast.kernels.instance_norm import aten, cpp, fused, reference
from lorbms_fast.kernels.instance_norm.reference import instance_norm
from tests.kernels.forms import assert_forms_agree, draw, fast, results, size


@fast
@given(size, size, size, st.integers(2, 6), st.sampled_from(("contiguous", "channels_last")))
def test_instance_norm(n, channels, height, width, layout):
    x = draw(n, channels, height, width)
    arranged = x.contiguous(memory_format=torch.channels_last) if layout == "channels_last" else x
    assert_forms_agree(lambda impl: kernels.instance_norm(arranged, 1e-3, impl), [x])
    assert_forms_agree(lambda impl: kernels.instance_norm_relu(arranged, 1e-3, impl), [x])


def test_instance_norm_with_a_channels_last_gradient_of_one_sample():
    x = draw(1, 2, 2, 4)
    grad = draw(1, 2, 4, 2, seed=1).detach().permute(0, 3, 1, 2)[:, :2, :2].expand(1, 2, 2, 4)
    expected, found = (
        torch.autograd.grad(kernels.instance_norm(x, impl=impl), x, grad)[0] for impl in ("reference", "fused")
    )
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_instance_norm_of_a_constant_map_is_zero():
    x = torch.full((2, 3, 4, 4), 7.3)
    assert kernels.instance_norm(x.contiguous(memory_format=torch.channels_last), impl="fused").abs().max() == 0
    assert kernels.instance_norm(x, impl="fused").abs().max() < 1e-5
    assert kernels.instance_norm(x[..., :1, :1], impl="fused").abs().max() < 1e-4


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_instance_norm_of_volumes(layout):
    x = draw(2, 3, 4, 3, 5)
    arranged = x.contiguous(memory_format=layout)
    assert_forms_agree(lambda impl: kernels.instance_norm(arranged, impl=impl), [x], 1e-8)
    assert_forms_agree(lambda impl: kernels.instance_norm_relu(arranged, impl=impl), [x], 1e-8)


def test_instance_norm_far_from_zero():
    x = (torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) + 1000).float()
    torch.testing.assert_close(
        kernels.instance_norm(x, impl="fused"), instance_norm(x.double()).float(), atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shifted", [False, True])
def test_scale_shift_and_relu(layout, shifted):
    x, weight, bias = draw(2, 3, 4, 5).detach(), draw(3, seed=1), draw(3, seed=2) if shifted else None
    x = x.contiguous(memory_format=layout).requires_grad_()
    wanted = [tensor for tensor in (x, weight, bias) if tensor is not None]
    found, expected = (
        results(form(x, 1e-3, weight, bias, *relu), wanted)
        for form, relu in ((fused.instance_norm, (RELU,)), (reference.instance_norm_relu, ()))
    )
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(not cpp.take(torch.ones(1, 1, 2, 2)), reason="no C++ compiler")
def test_which_form_runs():
    """Torch's own norms where they are quicker, and nothing of autograd's around loops that nobody differentiates."""

    def form(
        shape, dtype=torch.float32, activation=IDENTITY, trains=True, layout=torch.contiguous_format, affine=False
    ):
        x = torch.ones(shape, dtype=dtype).contiguous(memory_format=layout)
        parameter = torch.ones(shape[1]) if affine else None
        return fused._form(x, parameter, parameter, activation, trains)

    torchs = fused._instance_norm
    assert form((2, 32, 64, 64)) is form((2, 3, 4, 4), layout=torch.channels_last) is cpp
    assert form((1, 3, 4, 4), layout=torch.channels_last) is cpp  # torch's batch norm is not as exact there
    assert form((1, 3, 4, 4), activation=RELU, layout=torch.channels_last) is cpp
    assert (
        form((1, 256, 2, 2)) is form((1, 256, 16, 16), torch.bfloat16) is form((2, 32, 2, 2), torch.float16) is torchs
    )
    assert form((4, 256, 16, 16), torch.bfloat16) is form((2, 64, 8, 16), torch.float16) is form((8, 64, 8, 8)) is cpp
    # Of several samples torch repeats parameters.
    assert form((2, 3, 4, 4), trains=False, affine=True) is form((2, 3, 90, 90), torch.half, trains=False, affine=True)
    assert form((2, 3, 4, 4), trains=False, affine=True) is form((1, 3, 90, 90), trains=False) is cpp
    assert form((2, 3, 4, 4), trains=False) is form((1, 3, 4, 4), trains=False, affine=True) is torchs
    weight = torch.ones(3, dtype=torch.bfloat16)  # loops widen it, and make its gradient narrow again
    assert fused._form(torch.ones(2, 3, 4, 4).bfloat16(), weight, None, IDENTITY, True) is torchs
    # Of a norm and an activation torch keeps two tensors, and the second must not be changed in place.
    assert form((1, 3, 4, 4), activation=RELU) is cpp
    assert form((1, 3, 4, 4), activation=RELU, trains=False) is torchs
    assert form((1, 3, 4, 4), torch.float16, RELU, trains=False) is torchs
    assert form((1, 3, 199, 199), torch.float16, RELU, trains=False) is cpp
    assert form((1, 3, 0, 4), activation=RELU) is torchs


@pytest.mark.parametrize("shape", [(5, 4, 6), (3, 1, 7), (4, 7, 1), (2, 2, 3, 4)], ids=str)
def test_gradients_of_one_small_sample(shape):
    """Of which torch's own makes another gradient in channels_last, however maps and gradients lie."""
    lying = {
        "contiguous": lambda t: t[None],
        "channels last": lambda t: t[None].movedim(1, -1).contiguous().movedim(-1, 1),
        "without a batch": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0)[None],
        "transposed": lambda t: t[None].transpose(-1, -2).contiguous().transpose(-1, -2),
        "expanded": lambda t: t[None, :, :1].expand(1, *t.shape),
    }
    values, probe = draw(2, *shape).detach()
    for of_x in ("channels last", "without a batch"):
        x = lying[of_x](values).requires_grad_()
        for of_grad in lying.values():
            grad = of_grad(probe)
            found, expected = (
                torch.autograd.grad(form(x, 1e-5), x, grad) for form in (fused.instance_norm, reference.instance_norm)
            )
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [4, 80])
def test_without_gradients(layout, side):
    x, weight = draw(2, 3, side, side).detach().float().contiguous(memory_format=layout), torch.tensor([1.0, -2.0, 0.5])
    expected = reference.instance_norm(x, 1e-5, weight, None, RELU)
    for found in (
        fused.instance_norm(x, 1e-5, weight, None, RELU),
        fused._Norm.apply(x, weight, None, (1e-5, RELU, aten)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        assert found.stride() == x.stride()
