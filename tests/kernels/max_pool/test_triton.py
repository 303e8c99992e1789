"""The 2x2 max pool in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.kernels.max_pool import reference
from lorbms_fast.kernels.max_pool.triton import ops as in_triton


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch) -> None:
    monkeypatch.setattr(in_triton, "BLOCK", 32)


def draw(*shape: int) -> Tensor:
    """With ties."""
    return torch.randint(-2, 3, shape, generator=torch.Generator().manual_seed(0)).float()


def run(x):
    return kernels.max_pool2x2(x, "triton")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 3, 2)])
def test_output_and_gradients(agree, shape, layout):
    x = draw(*shape).contiguous(memory_format=layout)
    assert run(x).is_contiguous(memory_format=layout)
    agree(run, reference.max_pool2x2, x)


def test_of_strange_strides(agree):
    agree(
        lambda x: run(x.transpose(2, 3)[:, 1:]),
        lambda x: reference.max_pool2x2(x.transpose(2, 3)[:, 1:]),
        draw(1, 3, 4, 2),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(agree, dtype):
    agree(run, reference.max_pool2x2, draw(1, 2, 2, 4).to(dtype), tolerance=1e-2)


def test_nan_is_greatest():
    x = torch.tensor([[1.0, torch.nan], [5, 2]]).view(1, 1, 2, 2)
    for impl in ("triton", "fused", "reference"):
        assert kernels.max_pool2x2(x, impl).isnan()


def test_opcheck():
    torch.library.opcheck(in_triton.pool, (draw(1, 2, 2, 2).requires_grad_(),))


def test_compiles_without_a_break():
    x = draw(1, 2, 4, 4)
    assert torch.equal(torch.compile(run, fullgraph=True, backend="aot_eager")(x), run(x))


def test_second_derivatives_are_the_definitions():
    found = {}
    for impl in ("triton", "reference"):
        x = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (slope,) = torch.autograd.grad(kernels.max_pool2x2(x, impl).pow(3).sum(), x, create_graph=True)
        (found[impl],) = torch.autograd.grad(slope.square().sum(), x)
    torch.testing.assert_close(found["triton"], found["reference"])
