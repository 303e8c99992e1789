"""The 1x1 convolution of a stack in two parts and tanh: kernels against the definition in float64."""

import pytest
import torch

from lorbms_fast.kernels.lorbms import output_conv2d
from lorbms_fast.kernels.lorbms.output_conv.reference import output_conv2d as definition
from lorbms_fast.kernels.lorbms.output_conv.triton import ops as form


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(form, "BLOCK_M", 16)
    monkeypatch.setattr(form, "PARTS", 3)


def inputs(n, channels, new, out, height, width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = (n, channels, height, width), (n, new, height, width), (out, channels + new, 1, 1), (out,)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1, 1), (2, 5, 7, 3, 5, 4), (1, 40, 17, 3, 8, 9), (3, 19, 70, 18, 3, 3)])
def test_output_and_gradients(shape, agree):
    agree(lambda *x: output_conv2d(*x, impl="triton"), definition, *inputs(*shape))


@pytest.mark.parametrize("impl", ["fused", "triton"])
def test_any_layout(agree, impl):
    def arranged(x, maps, *parameters):
        return x.contiguous(memory_format=torch.channels_last), maps.transpose(2, 3), *parameters

    agree(lambda *x: output_conv2d(*arranged(*x), impl=impl), lambda *x: definition(*arranged(*x)),
          *inputs(2, 5, 6, 3, 4, 4))  # fmt: skip


def test_autocast_leaves_parameters_as_they_are():
    tensors = inputs(2, 8, 6, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        y = output_conv2d(*tensors, impl="triton")
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), definition(*tensors), rtol=0.03, atol=0.03)
    y.float().square().sum().backward()
    assert {tensor.grad.dtype for tensor in tensors} == {torch.float32}


@pytest.mark.parametrize("moved", range(4))
def test_only_what_is_asked_for_gets_gradients(moved):
    tensors = inputs(1, 3, 4, 3, 4, 4)
    expected = torch.autograd.grad(definition(*tensors).square().sum(), tensors[moved])
    for i, tensor in enumerate(tensors):
        tensor.requires_grad_(i == moved)
    found = torch.autograd.grad(output_conv2d(*tensors, impl="triton").square().sum(), tensors[moved])
    torch.testing.assert_close(found, expected)


def test_opcheck_and_compile():
    tensors = inputs(1, 3, 2, 3, 4, 4)
    torch.library.opcheck(form.output_conv, (*tensors, torch.float32))
    compiled = torch.compile(lambda *x: output_conv2d(*x, impl="triton").sum(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*tensors), definition(*tensors).sum())
