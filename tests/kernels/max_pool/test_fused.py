"""2x2 max pooling against the definition in float64, outputs and gradients."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lorbms_fast import kernels
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels.max_pool import fused
from tests.kernels.forms import draw, fast, results, size


@fast
@given(size, size, st.integers(2, 7), st.integers(2, 7), st.booleans(), st.booleans())
def test_max_pool(n, channels, height, width, channels_last, ties):
    x = draw(n, channels, height, width)
    if channels_last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    if ties:
        x = x.detach().round().requires_grad_()
    found, expected = (results(kernels.max_pool2x2(x, impl), [x]) for impl in ("fused", "reference"))
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_channels_last_maps_keep_a_byte(dtype, monkeypatch):
    monkeypatch.setattr(fused, "MANY", 1)
    x = draw(2, 64, 5, 7).detach().to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.dtype) or t, lambda t: t):
        y = kernels.MaxPool2x2()(x)
    assert torch.uint8 in kept or not fused.by_loops(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    found, expected = results(y, [x]), results(nn.MaxPool2d(2)(x), [x])
    assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("values", "trained", "ours"),
    [(1 << 15, False, False), (1 << 16, False, True), (1 << 16, True, False), (1 << 17, True, True)],
)
def test_small_maps_go_through_torchs_own(values, trained, ours, monkeypatch):
    """Passes over corners are several calls, which take longer than torch's one does of few values."""
    taken = []
    monkeypatch.setattr(kernels.max_pool, "max_pool2x2", lambda x: taken.append(x))
    x = torch.zeros(1, values // 256, 16, 16, requires_grad=trained)
    y = kernels.MaxPool2x2()(x)
    assert bool(taken) == ours == (y is None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 4, 32), (1, 2, 5, 33), (2, 1, 7, 51), (1, 3, 2, 94)])
def test_rows_of_contiguous_maps(dtype, shape):
    """Full vectors, and last ones that begin before the one before them ends; odd rows and columns; ties; no number."""
    torch.manual_seed(0)
    ties, no_numbers = torch.randint(-2, 3, shape), torch.randn(shape)
    no_numbers[..., ::2, 1::2] = no_numbers[..., ::2, 1::2].masked_fill(
        torch.rand_like(no_numbers[..., ::2, 1::2]) < 0.2, torch.nan
    )
    for x in (torch.randn(shape), ties, no_numbers):
        x = x.to(dtype).requires_grad_()
        with native_loops(True):
            y = kernels.max_pool2x2(x, "fused")
            found = results(y, [x])
        assert y.is_contiguous()
        for f, e in zip(found, results(nn.MaxPool2d(2)(x), [x]), strict=True):
            torch.testing.assert_close(f, e, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("maps", "trained", "ours"), [(3, False, False), (4, False, True), (7, True, False), (8, True, True)]
)
def test_loops_pool_smaller_maps(maps, trained, ours, monkeypatch):
    taken = []
    monkeypatch.setattr(kernels.max_pool, "max_pool2x2", lambda x: taken.append(x))
    x = torch.zeros(1, maps, 64, 64, requires_grad=trained)
    kernels.MaxPool2x2()(x)
    assert bool(taken) == ours == fused.by_loops(x) * ours


def test_exports_with_any_number_of_samples():
    layer, batch = kernels.MaxPool2x2(), torch.export.Dim("batch", min=1, max=4096)
    exported = torch.export.export(layer, (torch.randn(2, 3, 64, 64),), dynamic_shapes=({0: batch},)).module()
    x = torch.randn(5, 3, 64, 64)
    assert torch.equal(exported(x), layer(x))
