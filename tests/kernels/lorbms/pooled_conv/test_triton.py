"""The pooled 1x1 convolution's kernels against the definition in float64."""

import pytest
import torch

from lorbms_fast.kernels.lorbms import pooled_conv2d
from lorbms_fast.kernels.lorbms.pooled_conv.reference import pooled_conv2d as definition
from lorbms_fast.kernels.lorbms.pooled_conv.triton import ops as form


def inputs(n, channels, out, height, width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = (n, channels, height, width), (out, channels, 1, 1), (out,)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("shape", [(1, 1, 1, 2, 2), (2, 5, 7, 5, 4), (3, 19, 17, 4, 7), (1, 40, 70, 12, 14)])
def test_output_and_gradients(shape, agree):
    agree(lambda *x: pooled_conv2d(*x, impl="triton"), definition, *inputs(*shape))


def test_blocks_without_tensor_cores(agree):
    with torch.backends.cudnn.flags(allow_tf32=False):
        agree(lambda *x: pooled_conv2d(*x, impl="triton"), definition, *inputs(2, 70, 70, 6, 5))


@pytest.mark.parametrize("shape", [(2, 5, 20, 5, 6), (1, 17, 3, 9, 8)])
def test_parameters_gradients_come_in_parts(shape, agree, monkeypatch):
    monkeypatch.setattr(form, "_ROWS_PER_PART", 16)
    agree(lambda *x: pooled_conv2d(*x, impl="triton"), definition, *inputs(*shape))


def test_any_layout(agree):
    x, weight, bias = inputs(2, 5, 4, 4, 6)
    for arrange in (lambda x: x.contiguous(memory_format=torch.channels_last), lambda x: x.transpose(2, 3)):
        agree(lambda *x, a=arrange: pooled_conv2d(a(x[0]), *x[1:], impl="triton"),
              lambda *x, a=arrange: definition(a(x[0]), *x[1:]), x, weight, bias)  # fmt: skip


def test_the_first_of_equal_values_gets_the_gradient():
    x = torch.ones(1, 1, 2, 2).requires_grad_()
    y = pooled_conv2d(x, torch.ones(1, 1, 1, 1), torch.zeros(1), impl="triton")
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.flatten().tolist() == [1, 0, 0, 0]


def test_what_is_not_a_number_is_the_greatest_and_minus_zero_is_zero():
    x = torch.tensor([[1, torch.nan, 2, 3], [-1, 5, torch.nan, 3], [-0.0, 0, -1, -3], [0, -0.0, -2, -4]])
    x = x[None, None].requires_grad_()
    y = pooled_conv2d(x, torch.ones(1, 1, 1, 1), torch.zeros(1), impl="triton")
    assert y.flatten().nan_to_num(7).tolist() == [7, 7, 0, -1]
    (grad,) = torch.autograd.grad(y, x, torch.ones_like(y))
    assert grad.flatten().nonzero().flatten().tolist() == [1, 6, 8, 10]


def test_autocast_leaves_parameters_as_they_are():
    x, weight, bias = inputs(2, 8, 6, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = pooled_conv2d(x, weight, bias, impl="triton")
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), definition(x, weight, bias), rtol=0.03, atol=0.1)
    y.float().square().sum().backward()
    assert weight.grad.dtype == bias.grad.dtype == x.grad.dtype == torch.float32


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_only_what_is_asked_for_gets_gradients(moved):
    tensors = inputs(1, 3, 4, 4, 4)
    expected = torch.autograd.grad(definition(*tensors).square().sum(), tensors[moved])
    for i, tensor in enumerate(tensors):
        tensor.requires_grad_(i == moved)
    found = torch.autograd.grad(pooled_conv2d(*tensors, impl="triton").square().sum(), tensors[moved])
    torch.testing.assert_close(found, expected)


def test_opcheck_and_compile():
    x, weight, bias = inputs(1, 3, 4, 4, 4)
    torch.library.opcheck(form.pooled_conv, (x, weight, bias, torch.float32))
    compiled = torch.compile(lambda *x: pooled_conv2d(*x, impl="triton").sum(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight, bias), definition(x, weight, bias).sum())
