"""Winograd's convolution and its gradients against convolutions in float64, and who computes which."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorbms_fast.kernels._common import winograd
from lorbms_fast.kernels._common.cpp import native_loops, vectors
from lorbms_fast.kernels._common.layout import CHANNELS_LAST as LAYOUTS
from lorbms_fast.kernels._common.winograd import cpp
from lorbms_fast.measurement.counts import count
from tests.kernels.threads import the_same_by_threads, threads

CHANNELS_LAST = torch.channels_last
# Of the largest result: ten times what is seen, a fifth of what the points 1 and 2 would have; in bfloat16 half of the
# last of 8 bits, as results are rounded once.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-8}
TILES = (torch.float32, 4), (torch.bfloat16, 4), (torch.bfloat16, 8)
all_tiles = pytest.mark.parametrize(("dtype", "side"), TILES)

channels = st.sampled_from([16, 32, 48, 80, 112, 208])


@pytest.fixture
def everywhere(monkeypatch, side, no_tiles):
    """Take all shapes, whether it pays or not, in tiles of this side."""
    monkeypatch.setattr(cpp, "tile", lambda y, taps, dtype: side)
    monkeypatch.setattr(cpp, "pays", lambda y, taps, dtype: taps[0] % cpp.LANES == taps[1] % cpp.LANES == 0)
    if not (vectors.has_vectors() and cpp.LOOPS.take(stack(1, 16, 4, 4))):
        pytest.skip("no AVX2, or no C++ compiler")


def stack(n: int, C: int, height: int, width: int, around=(0, 0), seed=0, dtype=torch.float32) -> Tensor:
    """Some channels of a wider channels_last stack."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn(n, around[0] + C + around[1], height, width, generator=generator).to(dtype)
    return whole.contiguous(memory_format=CHANNELS_LAST)[:, around[0] : around[0] + C]


def close(found: Tensor, expected: Tensor) -> bool:
    return (found.double() - expected).abs().max().item() <= TOLERANCE[found.dtype] * expected.abs().max().item()


@all_tiles
@pytest.mark.usefixtures("everywhere")
@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 3), C=channels, O=channels, height=st.integers(1, 18), width=st.integers(1, 18),
    around=st.tuples(st.integers(0, 3), st.integers(0, 3)), count=st.integers(1, 3),
)  # fmt: skip
def test_as_in_float64(dtype, n, C, O, height, width, around, count):
    with threads(count):
        x, g = stack(n, C, height, width, around, 0, dtype), stack(n, O, height, width, around, 1, dtype)
        W, b = stack(O, C, 3, 3, seed=2, dtype=dtype), torch.linspace(-3, 3, O).to(dtype)
        assert cpp.take(x, W, g)
        exact = [t.double().requires_grad_() for t in (torch.relu(x), W, b)]
        y = F.conv2d(*exact, padding=1)

        assert close(winograd.relu_conv2d(x, W, b), y)
        out = stack(n, O, height, width, around, 1, dtype)
        winograd.add_relu_conv2d_(out, x, W)
        assert close(out, g + y - exact[2][:, None, None])
        out.copy_(g)  # what lies beside it is as it was
        assert torch.equal(out._base, g._base)
        found = winograd.relu_conv2d_backward(g, x, W, (True, True, True))
        assert all(map(close, found, torch.autograd.grad(y, exact, g.double())))


@all_tiles
@pytest.mark.usefixtures("everywhere")
@settings(deadline=None, max_examples=10)
@given(n=st.integers(1, 2), C=channels, O=channels, deep=st.booleans(), count=st.integers(1, 3))
def test_taps_are_read_and_written_as_they_lie(dtype, n, C, O, deep, count):
    """Contiguous ones, and those in float32 of bfloat16 maps, to the bits; a bias's gradient with them."""
    depth, size = (3,) if deep else (), (5, 9, 13) if deep else (9, 13)
    layout, generator = LAYOUTS[2 + len(size)], torch.Generator().manual_seed(0)
    x, g = (torch.randn(n, k, *size, generator=generator).to(dtype).contiguous(memory_format=layout) for k in (C, O))
    W, padding = torch.randn(O, C, *depth, 3, 3, generator=generator).to(dtype), (1,) * len(size)
    results = []
    with threads(count):
        for taps in (W.contiguous(memory_format=layout), W, W.float(), W.float().contiguous(memory_format=layout)):
            y, to_x, to_W, sums = torch.empty_like(g), torch.empty_like(x), torch.empty_like(taps), torch.empty(O)
            cpp.conv(x, taps, None, y, padding, False, False)
            cpp.backward_input(g, taps, to_x, padding)
            cpp.backward_taps(g, x, to_W, padding, False, cpp.PLAIN, [sums])
            results.append((y, to_x, to_W.to(dtype), sums))
    for others in results[1:]:
        assert all(map(torch.equal, results[0], others))
    exact = g.double().sum((0, *range(2, g.dim())))
    assert (results[0][3] - exact).abs().max() <= 1e-6 * exact.abs().max()


@all_tiles
@pytest.mark.parametrize("sizes", [(2, 21, 18), (1, 4, 13, 9)], ids=["2D", "3D"])
@pytest.mark.parametrize(("C", "O"), [(272, 16), (192, 16), (400, 32)])
@pytest.mark.usefixtures("everywhere")
def test_many_channels_are_threads_own(dtype, sizes, C, O):
    """Whatever each of them takes, taps' gradients are the same to the bits."""
    n, *positions = sizes
    generator, padding = torch.Generator().manual_seed(0), (1,) * len(positions)
    x, g = (torch.randn(n, k, *positions, generator=generator) for k in (C, O))
    x, g = (t.to(dtype).contiguous(memory_format=LAYOUTS[t.dim()]) for t in (x, g))

    def taps():
        found = torch.empty(O, C, *[3] * len(positions))
        cpp.backward_taps(g, x, found, padding, True, cpp.PLAIN, [])
        return (found,)

    (found,) = the_same_by_threads(taps, (1, 2, 3, 4))
    W = torch.zeros(found.shape, dtype=torch.float64, requires_grad=True)
    y = (F.conv2d if len(positions) == 2 else F.conv3d)(torch.relu(x.double()), W, padding=1)
    assert close(found.to(dtype), *torch.autograd.grad(y, W, g.double()))


@pytest.mark.parametrize("side", [4, 8])
@pytest.mark.usefixtures("everywhere")
def test_bfloat16_is_off_by_its_rounding_alone(side):
    sizes = (2, 304, 24, 16), (2, 112, 24, 16), (112, 304, 3, 3)
    x, g, W = (stack(*size, seed=seed, dtype=torch.bfloat16) for seed, size in enumerate(sizes))
    exact = [t.double().requires_grad_() for t in (torch.relu(x), W)]
    y = F.conv2d(*exact, padding=1)
    found = winograd.relu_conv2d(x, W), *winograd.relu_conv2d_backward(g, x, W, (True, True, False))[:2]
    for ours, of_it in zip(found, (y, *torch.autograd.grad(y, exact, g.double())), strict=True):
        error, rounding = (t.double() - of_it for t in (ours, of_it.bfloat16()))
        assert error.square().mean() <= 1.01 * rounding.square().mean()
        assert error.abs().max() <= 1.1 * rounding.abs().max()
        assert error.mean().abs() <= 1e-2 * error.std()


@all_tiles
@pytest.mark.usefixtures("everywhere")
def test_the_same_bits_whatever_the_threads(dtype):
    sizes = (3, 48, 13, 21), (3, 32, 13, 21), (32, 48, 3, 3)
    x, g, W = (stack(*size, seed=seed, dtype=dtype) for seed, size in enumerate(sizes))
    the_same_by_threads(
        lambda: (winograd.relu_conv2d(x, W), *winograd.relu_conv2d_backward(g, x, W, (True, True, False))[:2])
    )


@all_tiles
@pytest.mark.usefixtures("everywhere")
def test_what_is_not_a_number_stays_so(dtype):
    x, W = stack(1, 16, 8, 8, dtype=dtype), stack(16, 16, 3, 3, dtype=dtype)
    x[0, 3, 2, 2] = torch.nan
    assert winograd.relu_conv2d(x, W)[0, :, 1:4, 1:4].isnan().all()


def test_only_enough_tiles_for_its_weights():
    W = stack(64, 48, 3, 3)
    x = stack(2, 48, 16, 16)
    with native_loops(False):
        assert not cpp.take(x, W)
    assert not cpp.take(x.bfloat16(), W)
    assert not cpp.take(x, W, stack(2, 64, 16, 16, dtype=torch.bfloat16))
    assert not cpp.take(x.half(), W.half())
    assert not cpp.take(x.double(), W.double())
    assert not cpp.take(x.contiguous(), W)
    assert not cpp.take(x, stack(64, 48, 1, 1))
    assert not cpp.take(stack(2, 47, 16, 16), stack(64, 47, 3, 3))
    assert not cpp.take(stack(1, 656, 4, 4), stack(192, 656, 3, 3))
    assert not cpp.take(stack(64, 16, 1, 1), stack(16, 16, 3, 3))


@pytest.mark.parametrize("native", [True, False], ids=["C++", "torch"])
def test_what_went_through_relu_already(native):
    x, g, W = stack(2, 48, 16, 16), stack(2, 64, 16, 16, seed=1), stack(64, 48, 3, 3, seed=2)
    a, mask = torch.relu(x), (True, True, False)
    with native_loops(native):
        assert torch.equal(winograd.relu_conv2d(a, W), winograd.relu_conv2d(x, W))
        found = winograd.relu_conv2d_backward(g, a, W, mask)
        expected = winograd.relu_conv2d_backward(g, x, W, mask)
    assert all(torch.equal(f, e) for f, e in zip(found[:2], expected[:2], strict=True))


def test_bfloat16_asks_for_more_tiles_and_leaves_nearly_all_to_amx(monkeypatch):
    small, large, W = (stack(*size, dtype=torch.bfloat16) for size in ((2, 96, 4, 4), (64, 96, 8, 8), (96, 96, 3, 3)))
    monkeypatch.setattr(vectors, "has_vectors", lambda: True)
    for amx in (False, True):
        cpp.pays.cache_clear()
        monkeypatch.setattr(vectors, "has_amx", lambda amx=amx: amx)
        assert [cpp.pays(x.shape, W.shape, torch.bfloat16) for x in (small, large)] == [False, not amx]
        assert cpp.pays(large.shape, W.shape, torch.float32)
        if cpp.runs():  # but for gradients of taps that saw small maps
            assert [cpp.take_taps(x, x, W) for x in (small, large)] == [amx, True]
            assert cpp.take(large, W) != amx
            wide = stack(64, 96, 9, 8, dtype=torch.bfloat16)
            assert cpp.take_taps(wide, wide, W) != amx
    cpp.pays.cache_clear()


def test_large_tiles_for_enough_bfloat16():
    many, few, taps = torch.Size((12, 112, 32, 32)), torch.Size((36, 112, 8, 8)), torch.Size((112, 304, 3, 3))
    assert [cpp.tile(size, taps, torch.bfloat16) for size in (many, few)] == [8, 4]
    assert cpp.tile(many, taps, torch.float32) == 4


def test_operations_of_its_products_are_counted():
    for dtype, multiplications in ((torch.float32, 4 * 4 * 36), (torch.bfloat16, 2 * 2 * 100)):
        x, W = stack(2, 16, 16, 16, dtype=dtype), stack(32, 16, 3, 3, dtype=dtype)
        if cpp.take(x, W):
            assert count(lambda x=x, W=W: winograd.relu_conv2d(x, W)).gflop == 2 * 2 * multiplications * 16 * 32 / 1e9


def test_gradients_of_taps_over_many_tiles_are_sums_of_sums():
    """Each tile added to what has grown large, they were off by three millionths here, and more of larger images."""
    if not cpp.runs():
        pytest.skip("no AVX2, or no C++ compiler")
    x, g = (1 + stack(1, 16, 384, 384, seed=seed).abs() for seed in (0, 1))
    to_W = stack(16, 16, 3, 3)
    cpp.backward_taps(g, x, to_W, (1, 1), False, cpp.PLAIN, [])
    exact = torch.nn.grad.conv2d_weight(x.double(), to_W.shape, g.double(), padding=1)
    assert (to_W - exact).abs().max() <= 1.2e-6 * exact.abs().max()
