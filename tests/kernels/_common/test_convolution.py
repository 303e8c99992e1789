"""Convolutions of few positions as products of matrices, and the bounds of that."""

import pytest
import torch
import torch.nn.functional as F

from lorbms_fast.kernels._common import convolution


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("side", "size"), [(1, (1, 5, 1, 5)), (1, (3, 32, 8, 8)), (3, (1, 3, 7, 3)), (3, (0, 2, 4, 4))]
)
def test_as_torchs_in_float64(side, size, layout, monkeypatch):
    monkeypatch.setattr(convolution, "_few", lambda x, W: True)
    torch.manual_seed(0)
    shapes = size, (7, size[1], side, side), (7,), (size[0], 7, *size[2:])
    x, W, b, grad = (torch.randn(shape).bfloat16() for shape in shapes)
    x, W, grad = (t.contiguous(memory_format=layout) for t in (x, W, grad))
    exact = [t.double().requires_grad_() for t in (x, W, b)]
    y = F.conv2d(*exact, padding=side // 2)
    expected = [y.detach(), *torch.autograd.grad(y, exact, grad.double())]
    monkeypatch.setattr(F, "conv2d", None)
    found = [convolution.conv2d(x, W, b), *convolution.conv2d_backward(grad, x, W, (True, True, True))]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        largest = max(theirs.abs().flatten().tolist(), default=0)
        torch.testing.assert_close(ours.double(), theirs, rtol=2**-8, atol=2**-8 * largest)
    assert convolution.conv2d_backward(grad, x, W, (False, False, False)) == (None, None, None)


def test_where_positions_are_few(monkeypatch):
    def few(positions, side, dtype=torch.bfloat16, of_weight=torch.bfloat16):
        x, W = torch.empty(2, 3, *positions, dtype=dtype), torch.empty(4, 3, side, side, dtype=of_weight)
        return convolution._few(x, W)

    monkeypatch.setattr(convolution, "has_amx", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert few((8, 8), 1)
    assert few((3, 7), 3)
    assert not few((5, 13), 1)
    assert not few((2, 11), 3)
    assert not few((0, 4), 3)
    assert not few((4, 4), 3, torch.float32, torch.float32)
    assert not few((4, 4), 3, of_weight=torch.float32)
    monkeypatch.setattr(convolution, "has_amx", lambda: True)
    assert not few((4, 4), 3)
    monkeypatch.setattr(convolution, "has_amx", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not few((4, 4), 3)


@pytest.mark.parametrize(("dtype", "side"), [(torch.float32, 4), (torch.float64, 4), (torch.bfloat16, 5)])
def test_others_are_torchs(dtype, side):
    x, W = torch.randn(2, 3, side, side, dtype=dtype), torch.randn(4, 3, 3, 3, dtype=dtype)
    assert torch.equal(convolution.conv2d(x, W), F.conv2d(x, W, padding=1))
    W.requires_grad_()
    (expected,) = torch.autograd.grad(F.conv2d(x, W, padding=1).sum(), W)
    grad = torch.ones(2, 4, side, side, dtype=dtype)
    _, found, _ = convolution.conv2d_backward(grad, x, W.detach(), (False, True, False))
    assert torch.equal(found, expected)
