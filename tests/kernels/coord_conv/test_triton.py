"""Coordinates appended in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.kernels.coord_conv import reference
from lorbms_fast.kernels.coord_conv.triton import ops as in_triton


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(x, weight, bias):
    return kernels.coord_conv2d(x, weight, bias, "triton")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("n", "channels", "height", "width"), [(2, 3, 5, 4), (1, 1, 1, 3), (1, 2, 3, 1)])
def test_output_and_gradients(agree, monkeypatch, n, channels, height, width, layout):
    monkeypatch.setattr(in_triton, "BLOCK", 16)
    x = draw(n, channels, height, width).contiguous(memory_format=layout)
    agree(run, reference.coord_conv2d, x, draw(2, channels + 2, 3, 3, seed=1), draw(2, seed=2))


def test_of_strange_strides(agree):
    x = draw(1, 4, 2, 3)
    agree(
        lambda x: in_triton.append_coordinates(x.transpose(2, 3)[:, 1:], x.dtype),
        lambda x: reference.append_coordinates(x.transpose(2, 3)[:, 1:]),
        x,
    )


def test_autocast_as_a_convolution():
    x, weight = draw(1, 3, 4, 4).requires_grad_(), draw(2, 5, 3, 3, seed=1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = run(x, weight, None), reference.coord_conv2d(x, weight)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
    found.float().sum().backward()
    assert x.grad.dtype == weight.grad.dtype == torch.float32


def test_opcheck():
    torch.library.opcheck(in_triton.append_coordinates, (draw(1, 2, 2, 3).requires_grad_(), torch.float32))


def test_compiles_without_a_break():
    inputs = draw(1, 1, 3, 3), draw(2, 3, 3, 3, seed=1), draw(2, seed=2)
    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend="aot_eager")(*inputs), run(*inputs))
