"""The resize convolution in Triton's interpreter."""

import pytest
import torch
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.kernels.resize_conv import reference
from lorbms_fast.kernels.resize_conv.triton import ops as in_triton


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(x, weight):
    return kernels.resize_conv(x, weight, "triton")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("n", "channels", "out", "height", "width"), [(2, 17, 3, 3, 4), (1, 2, 18, 1, 2)])
def test_output_and_gradients(agree, n, channels, out, height, width, layout):
    x = draw(n, channels, height, width).contiguous(memory_format=layout)
    assert run(x, draw(out, channels, 3, 3)).is_contiguous(memory_format=layout)
    agree(run, reference.resize_conv, x, draw(out, channels, 3, 3, seed=1))


def test_weight_gradient_summed_in_parts(agree, monkeypatch):
    monkeypatch.setattr(in_triton, "POSITIONS_PER_PART", 5)
    agree(run, reference.resize_conv, draw(3, 2, 2, 2), draw(2, 2, 3, 3, seed=1))


@pytest.mark.parametrize("parts_of", [2048, 3])
def test_more_values_than_a_launch_can_number(agree, monkeypatch, parts_of):
    monkeypatch.setattr(in_triton, "POSITIONS_PER_PART", parts_of)
    monkeypatch.setattr(in_triton, "INDEXABLE", 2 * 4 * 2 * 4 + 1)  # two samples of 2 maps of 4x4
    agree(run, reference.resize_conv, draw(5, 3, 2, 2), draw(2, 3, 3, 3, seed=1))
    monkeypatch.setattr(in_triton, "INDEXABLE", 4 * 2 * 4)
    with pytest.raises(NotImplementedError, match="of one sample"):
        run(draw(5, 3, 2, 2), draw(2, 3, 3, 3))


def test_samples_that_lie_apart_are_numbered_with_what_is_between_them():
    x, grad = torch.empty(3, 4, 32, 32, device="meta"), torch.empty(3, 1 << 18, 64, 64, device="meta")[:, :4]
    assert len(in_triton._launches(x, 4)) == 1
    assert len(in_triton._launches(x, 4, grad)) == 3
    assert len(in_triton._launches(x[:1], 4, grad[:1])) == 1
    with pytest.raises(NotImplementedError, match="of one sample"):  # whose maps lie 2^30 values apart
        in_triton._launches(x[:1], 4, torch.empty(1, 4, 1 << 18, 64, 64, device="meta")[:, :, 0])


def test_a_gradient_that_reaches_too_far_is_laid_together(monkeypatch):
    x, weight, larger = draw(2, 3, 2, 2).requires_grad_(), draw(2, 3, 3, 3, seed=1), draw(2, 8, 4, 4, seed=2)
    monkeypatch.setattr(in_triton, "INDEXABLE", 100)  # of 128 values between two samples of the larger one
    expected, found = (
        torch.autograd.grad(form(x, weight), x, larger[:, :2])[0] for form in (reference.resize_conv, run)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision(agree, dtype):
    x, weight = draw(1, 3, 2, 2).to(dtype), draw(2, 3, 3, 3, seed=1).to(dtype)
    agree(run, reference.resize_conv, x, weight, tolerance=2 * torch.finfo(dtype).eps)


def test_of_strange_strides(agree):
    agree(
        lambda x, weight: run(x.transpose(2, 3)[:, 1:], weight),
        lambda x, weight: reference.resize_conv(x.transpose(2, 3)[:, 1:], weight),
        *(draw(1, 3, 2, 3), draw(2, 2, 3, 3, seed=1)),
    )


def test_autocast_as_a_convolution():
    x, weight = draw(1, 2, 2, 2), draw(3, 2, 3, 3, seed=1).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = run(x, weight)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_weight_and_its_gradient_in_channels_last(agree):
    weight = draw(2, 3, 3, 3, seed=1).contiguous(memory_format=torch.channels_last).requires_grad_()
    agree(run, reference.resize_conv, draw(1, 3, 2, 2), weight)
    run(draw(1, 3, 2, 2), weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.stride() == weight.stride()


@pytest.mark.parametrize("moved", [0, 1])
def test_only_what_is_asked_for(moved):
    inputs = [draw(1, 2, 2, 2), draw(2, 2, 3, 3, seed=1)]
    inputs[moved].requires_grad_()
    run(*inputs).sum().backward()
    assert inputs[moved].grad is not None


def test_a_penalty_of_gradients():
    def penalty(impl, dtype):
        inputs = draw(1, 2, 2, 3).to(dtype).requires_grad_(), draw(3, 2, 3, 3, seed=1).to(dtype).requires_grad_()
        y = torch.tanh(kernels.resize_conv(*inputs, impl))
        grads = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in grads), inputs)

    exact = penalty("reference", torch.float64)
    for found, expected in zip(penalty("triton", torch.float32), exact, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_opcheck():
    x, taps = draw(1, 2, 2, 2).requires_grad_(), draw(9, 2, 3, seed=1).requires_grad_()
    torch.library.opcheck(in_triton.resize_conv, (x, taps))
    first, other = draw(2, 2, 3, 3).requires_grad_(), draw(3, 1, 3, 3, seed=1).requires_grad_()
    torch.library.opcheck(in_triton.fold, (first, [other], torch.float32))


def test_several_weights_folded_at_once(agree):
    x = draw(2, 3, 2, 2)

    def folded(first, second):
        return torch.cat(
            [kernels.resize_conv(x, taps) for taps in kernels.fold_taps([first, second], impl="triton")], 1
        )

    def defined(first, second):
        return torch.cat([reference.resize_conv(x.double(), weight) for weight in (first, second)], 1)

    second = draw(2, 3, 3, 3, seed=2).contiguous(memory_format=torch.channels_last)
    agree(folded, defined, draw(4, 3, 3, 3, seed=1), second)


def test_compiles_without_a_break():
    def function(x, weight):
        return run(x, weight).square().sum()

    inputs = draw(1, 2, 2, 2).requires_grad_(), draw(2, 2, 3, 3, seed=1).requires_grad_()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for f, e in zip(
        torch.autograd.grad(compiled(*inputs), inputs), torch.autograd.grad(function(*inputs), inputs), strict=True
    ):
        torch.testing.assert_close(f, e)
