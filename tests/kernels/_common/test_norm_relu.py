"""The passes over maps between convolutions, in C++ and in torch, against what they are in float64."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorbms_fast.kernels._common import norm_relu
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels._common.norm_relu import cpp
from lorbms_fast.kernels.max_pool.fused import pooled, unpooled
from tests.kernels.threads import the_same_by_threads

CHANNELS_LAST = torch.channels_last
EPS = 1e-9
# Of values about 1. Sums are float32 for bfloat16 maps; what is written is rounded to 8 bits or 11.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}

dtypes = st.sampled_from(list(TOLERANCES))
shapes = st.tuples(st.integers(1, 3), st.one_of(st.integers(1, 70), st.just(32)), st.integers(1, 9), st.integers(1, 9))
beside = st.tuples(st.integers(0, 3), st.integers(0, 3))


@pytest.fixture(params=[True, False], ids=["C++", "torch"], scope="module", autouse=True)
def form(request) -> Iterator[None]:
    with native_loops(request.param):
        if request.param and not cpp.LOOPS.take(torch.zeros(1, 2, 3, 4).contiguous(memory_format=CHANNELS_LAST)):
            pytest.skip("no C++ compiler")
        yield


def stack(shape: tuple[int, ...], around: tuple[int, int], dtype: torch.dtype, seed: int) -> Tensor:
    """Some channels of a wider stack, channels_last."""
    n, channels, height, width = shape
    before, after = around
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(n, before + channels + after, height, width, generator=generator, dtype=torch.float64)
    return whole.to(dtype).contiguous(memory_format=CHANNELS_LAST)[:, before : before + channels]


def normalized(x: Tensor) -> tuple[Tensor, Tensor]:
    var, mean = torch.var_mean(x.double(), (2, 3), correction=0, keepdim=True)
    rstd = (var + EPS).rsqrt()
    return (x.double() - mean) * rstd, rstd


def close(found: Tensor, expected: Tensor, scale: float = 1.0) -> bool:
    error = (found.double() - expected).abs().max().item()
    return error <= scale * TOLERANCES[found.dtype] * max(1.0, expected.abs().max().item())


@settings(deadline=None, max_examples=40)
@given(shape=shapes, around=beside, dtype=dtypes, in_place=st.booleans())
def test_normalize(shape, around, dtype, in_place):
    x = stack(shape, around, dtype, 0)
    expected, rstd = normalized(x)
    out = x if in_place else stack(shape, around, dtype, 1)
    neighbours = out._base.clone() if out._base is not None else None
    found = norm_relu.normalize(x, out, EPS)
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    # A map of one or two positions may have next to no variance, which amplifies rounding.
    amplified = 1 + rstd.max().item()
    assert close(out, expected, amplified)
    assert (found.double() / rstd - 1).abs().max().item() <= 1e-3 * amplified
    if neighbours is not None:
        out.copy_(torch.zeros_like(out))
        base = out._base
        neighbours[:, around[0] : around[0] + shape[1]] = 0
        assert torch.equal(base, neighbours), "channels beside were written"


@pytest.mark.parametrize("value", [0.0, 1.0, 1000.1, -3e4])
def test_a_flat_map_becomes_zero(value):
    x = torch.full((2, 40, 7, 9), value).contiguous(memory_format=CHANNELS_LAST)
    # torch's mean of equal numbers is not always that number.
    rounding = 0.0 if cpp.LOOPS.take(x) else abs(value) * 2**-23
    norm_relu.normalize(x, x, EPS)
    assert x.abs().max().item() <= rounding / EPS**0.5


def test_a_map_far_from_zero():
    x = 1e4 + stack((2, 17, 16, 16), (0, 0), torch.float32, 3)
    expected, _ = normalized(x)
    norm_relu.normalize(x, x, EPS)
    assert (x.double() - expected).abs().max().item() < 1e-3


@settings(deadline=None, max_examples=40)
@given(shape=shapes, around=beside, dtype=dtypes, in_place=st.booleans(), behind_relu=st.booleans())
def test_normalize_backward(shape, around, dtype, in_place, behind_relu):
    x_hat, rstd = normalized(stack(shape, (0, 0), torch.float64, 4))
    rstd = rstd.clamp(max=10).to(torch.promote_types(dtype, torch.float32))
    kept = stack(shape, around, dtype, 5).copy_(x_hat)
    grad, other = stack(shape, around, dtype, 6), stack(shape, (0, 0), dtype, 7)
    g = grad.double()
    if behind_relu:
        g = torch.where(kept > 0, g + other.double(), 0.0)
    along = (g * kept.double()).mean((2, 3), keepdim=True)
    expected = rstd.double() * (g - g.mean((2, 3), keepdim=True) - kept.double() * along)
    out = grad if in_place else torch.empty_like(grad, memory_format=CHANNELS_LAST)
    if behind_relu:
        found = norm_relu.relu_normalize_backward(grad, other, kept, rstd, out)
    else:
        found = norm_relu.normalize_backward(grad, kept, rstd, out)
    assert found is out
    assert close(out, expected, 10.0)


@settings(deadline=None, max_examples=30)
@given(shape=shapes, around=beside, dtype=dtypes)
def test_relu_backward_and_sums(shape, around, dtype):
    grad, x, total = (stack(shape, around, dtype, seed) for seed in range(3))
    of_x = grad.double() * (x > 0)
    assert torch.equal(norm_relu.relu_backward(grad, x).double(), of_x)
    values = stack(shape, (0, 0), dtype, 3)
    expected = (total.double() + values.double()).to(dtype)
    norm_relu.add_(total, values)
    assert torch.equal(total, expected)
    norm_relu.add_relu_backward_(total, grad, x)
    assert torch.equal(total, (expected.double() + of_x).to(dtype))


def test_what_is_not_a_number_is_not_hidden():
    shape = (1, 33, 4, 4)
    for dtype in TOLERANCES:
        x, grad = stack(shape, (0, 0), dtype, 0), stack(shape, (0, 0), dtype, 1)
        x[0, 3, 2, 1] = torch.nan
        assert norm_relu.relu_backward(grad, x)[0, 3, 2, 1] == grad[0, 3, 2, 1]
        assert pooled(x)[0][0, 3, 1, 0].isnan()
        norm_relu.normalize(x, x, EPS)
        assert x[0, 3].isnan().all()
        assert x.isnan().sum() == 16


def test_the_number_of_threads_changes_nothing():
    def outcome():
        x, grad = stack((5, 48, 17, 16), (3, 5), torch.float32, 0), stack((5, 48, 17, 16), (0, 0), torch.float32, 1)
        rstd = norm_relu.normalize(x, x, EPS)
        norm_relu.normalize_backward(grad, x, rstd, grad)
        return x, rstd, grad

    if not cpp.LOOPS.take(outcome()[0]):
        pytest.skip("how torch divides its sums among threads is torch's")
    the_same_by_threads(outcome)


@settings(deadline=None, max_examples=40)
@given(shape=shapes, dtype=dtypes, channels_last=st.booleans(), few_values=st.booleans())
def test_pool(shape, dtype, channels_last, few_values):
    n, channels, height, width = shape
    x = stack((n, channels, height + 1, width + 1), (0, 0), dtype, 0)
    if few_values:
        x = x.round()  # many are equal: the first counts
    if not channels_last:
        x = x.contiguous()
    y, places = pooled(x)
    x.requires_grad_()
    expected = torch.nn.functional.max_pool2d(x, 2)
    assert torch.equal(y, expected)
    grad = stack(tuple(y.shape), (0, 0), dtype, 1)
    assert torch.equal(unpooled(grad, places, height + 1, width + 1), torch.autograd.grad(expected, x, grad)[0])
