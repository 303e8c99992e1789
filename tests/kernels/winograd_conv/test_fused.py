"""Winograd's convolution as a layer: against torch's, in values, gradients, layouts and all else that users see."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lorbms_fast.kernels import (
    WinogradConv2d,
    WinogradConv3d,
    accelerate,
    use_impl,
    winograd_conv,
)
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels._common.layout import CHANNELS_LAST
from lorbms_fast.kernels._common.of_torch import has_amx
from lorbms_fast.kernels._common.winograd import cpp
from lorbms_fast.kernels.winograd_conv import fused, reference
from lorbms_fast.measurement.counts import count
from tests.kernels.convolutions import (
    assert_same_gradients_beside,
    assert_same_whatever_is_done,
    close,
    drawn,
    frozen_ones,
    kept,
    layouts,
)
from tests.kernels.threads import the_same_by_threads, threads

# Of the largest result.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-7}
both = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
LAYERS = {2: (WinogradConv2d, nn.Conv2d), 3: (WinogradConv3d, nn.Conv3d)}
dimensions = pytest.mark.parametrize("dimensions", LAYERS, ids="{}D".format)


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """Take all shapes whose channels come in vectors, whether it pays or not."""
    if not cpp.runs():
        pytest.skip("no AVX2, or no C++ compiler")

    def pays(y: torch.Size, taps: torch.Size, dtype: torch.dtype, alone: bool, contiguous: bool) -> bool:
        return dtype in TOLERANCE and taps[0] % 16 == taps[1] % 16 == 0 and y.numel() > y[1]

    monkeypatch.setattr(cpp, "pays", pays)
    monkeypatch.setattr(fused, "may_pay", lambda *_: True)
    monkeypatch.setattr(fused, "MANY", 0)


def is_winograds(y: Tensor) -> bool:
    return type(y.grad_fn).__name__ == "_ConvolutionBackward"


def image(dimensions: int, n: int = 2, channels_last: bool = False) -> Tensor:
    """What the layers read."""
    return drawn(n, 16, *(9, 7, 5)[:dimensions], channels_last=channels_last)


def layer(dimensions: int = 2, channels_last: bool = False) -> tuple[nn.Module, nn.Module]:
    """Ours and torch's, with the same parameters."""
    torch.manual_seed(0)
    kind, of_torch = LAYERS[dimensions]
    theirs = of_torch(16, 32, 3, padding=1)
    if channels_last:
        theirs = theirs.to(memory_format=CHANNELS_LAST[2 + dimensions])
    ours = copy.deepcopy(theirs)
    ours.__class__ = kind
    return ours, theirs


@both
@settings(deadline=None, max_examples=20)
@given(
    n=st.integers(1, 3), C=st.sampled_from([16, 48]), O=st.sampled_from([16, 32]), height=st.integers(4, 14),
    width=st.integers(4, 14), padding=st.sampled_from([0, 1, 2]), layouts=st.tuples(*[st.booleans()] * 3),
    shifted=st.booleans(),
)  # fmt: skip
def test_as_in_float64_and_laid_out_as_torchs(dtype, n, C, O, height, width, padding, layouts, shifted):
    x, W = (
        drawn(*shape, seed=seed, dtype=dtype, channels_last=last).requires_grad_()
        for seed, (shape, last) in enumerate(zip(((n, C, height, width), (O, C, 3, 3)), layouts, strict=False))
    )
    inputs = [x, W, *([drawn(O, dtype=dtype).requires_grad_()] if shifted else [])]
    y, theirs = winograd_conv(*inputs, padding=padding), F.conv2d(*inputs, padding=padding)
    assert is_winograds(y)
    assert y.stride() == theirs.stride()
    g = drawn(*y.shape, seed=3, dtype=dtype, channels_last=layouts[2])
    found, expected = (torch.autograd.grad(result, inputs, g) for result in (y, theirs))
    assert [f.stride() for f in found] == [expected[0].stride(), *(t.stride() for t in inputs[1:])]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    true = F.conv2d(*exact, padding=padding)
    of_exact = torch.autograd.grad(true, exact, g.double())
    for f, e in zip((y, *found), (true, *of_exact), strict=True):
        assert close(f, e, TOLERANCE[dtype])


@both
@settings(deadline=None, max_examples=20)
@given(
    n=st.integers(1, 4), height=st.integers(1, 70) | st.integers(100, 140), width=st.integers(1, 40) | st.just(300),
    padding=st.sampled_from([0, 1, 2]), count=st.integers(1, 3), side=st.sampled_from([4, 8]),
)  # fmt: skip
def test_contiguous_images_are_read_and_written_band_by_band(dtype, n, height, width, padding, count, side):
    size = height + 2 * padding - 2, width + 2 * padding - 2
    assume(min(size) > 0 and n * size[0] * size[1] > 1)  # one position is torch's own
    found = []
    with threads(count), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpp, "tile", lambda y, taps, dtype: 4 if dtype == torch.float32 else side)
        for last in (False, True):
            x = drawn(n, 16, height, width, dtype=dtype, channels_last=last).requires_grad_()
            W = drawn(32, 16, 3, 3, dtype=dtype, channels_last=last).requires_grad_()
            y = winograd_conv(x, W, padding=padding)
            g = drawn(*y.shape, seed=1, dtype=dtype)
            found.append((y, *torch.autograd.grad(y, (x, W), g)))
    assert is_winograds(y)
    for rows, lines in zip(*(results[:2] for results in found), strict=True):  # a tile is of the same operations
        assert torch.equal(rows, lines)
    assert close(found[0][2], found[1][2], TOLERANCE[dtype])


@both
@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 3), height=st.integers(2, 40), width=st.integers(2, 40), edges=st.sampled_from(cpp.EDGES),
    doubled=st.booleans(), layouts=st.tuples(*[st.booleans()] * 3), count=st.integers(1, 3),
    side=st.sampled_from([4, 8]),
)  # fmt: skip
def test_what_is_beyond_edges_or_enlarged_is_seen(dtype, n, height, width, edges, doubled, layouts, count, side):
    shapes = (n, 16, height, width), (32, 16, 3, 3), (n, 32, height << doubled, width << doubled)
    x, W, g = (
        drawn(*shape, seed=seed, dtype=dtype, channels_last=last).requires_grad_()
        for seed, (shape, last) in enumerate(zip(shapes, layouts, strict=True))
    )
    with threads(count), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpp, "tile", lambda y, taps, dtype: 4 if dtype == torch.float32 else side)
        y = fused.by_loops(x, W, None, (1, 1), edges, doubled)
        found = torch.autograd.grad(y, (x, W), g)
    exact = [t.detach().double().requires_grad_() for t in (x, W)]
    true = reference.winograd_conv(*exact, None, (1, 1), edges, doubled)
    for f, e in zip((y, *found), (true, *torch.autograd.grad(true, exact, g.double())), strict=True):
        assert close(f, e, TOLERANCE[dtype])
    assert found[0].is_contiguous(memory_format=CHANNELS_LAST[4] if any(layouts[:2]) else torch.contiguous_format)


@pytest.mark.parametrize("edges", ["reflect", "replicate"])
@layouts
def test_padding_modes_are_torchs(edges, channels_last):
    ours = WinogradConv2d(16, 32, 3, padding=1, padding_mode=edges)
    theirs = nn.Conv2d(16, 32, 3, padding=1, padding_mode=edges)
    theirs.load_state_dict(ours.state_dict())
    x = image(2, channels_last=channels_last).requires_grad_()
    with torch.profiler.profile() as profile:
        y = ours(x)
    assert is_winograds(y)
    assert not any("pad" in event.key for event in profile.key_averages())
    assert y.stride() == theirs(x).stride()
    for f, e in zip(*(torch.autograd.grad(z.sin().sum(), x, create_graph=True) for z in (y, theirs(x))), strict=True):
        assert close(f, e, 1e-5)
        assert f.stride() == e.stride()
    with pytest.raises(RuntimeError, match="Padding size"):
        WinogradConv2d(16, 32, 3, padding=1, padding_mode="reflect")(x[..., :1])


def test_no_image_is_copied_to_another_layout():
    x, W = drawn(2, 16, 20, 20).requires_grad_(), drawn(32, 16, 3, 3).requires_grad_()
    with torch.profiler.profile() as profile:
        winograd_conv(x, W, padding=1).sin().sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert "lorbms_fast::winograd_backward_taps" in names
    assert "lorbms_fast::arrange" not in names


@both
@settings(deadline=None, max_examples=20)
@given(
    n=st.integers(1, 2), C=st.sampled_from([16, 48]), O=st.sampled_from([16, 32]),
    size=st.tuples(st.integers(1, 6) | st.integers(49, 101), st.integers(4, 11), st.integers(4, 11)),
    deep=st.booleans(), padding=st.sampled_from([(0, 0), (1, 1), (0, 1), (2, 2), (2, 0)]),
    layouts=st.tuples(*[st.booleans()] * 3),
    shifted=st.booleans(),
)  # fmt: skip
def test_volumes_as_in_float64(dtype, n, C, O, size, deep, padding, layouts, shifted):
    in_depth, around = padding if deep else (0, padding[1])
    assume(size[0] + 2 * in_depth >= (k := 3 if deep else 1))
    x, W = (
        drawn(*shape, seed=seed, dtype=dtype, channels_last=last).requires_grad_()
        for seed, (shape, last) in enumerate(zip(((n, C, *size), (O, C, k, 3, 3)), layouts, strict=False))
    )
    inputs = [x, W, *([drawn(O, dtype=dtype).requires_grad_()] if shifted else [])]
    ours = WinogradConv3d(C, O, (k, 3, 3), padding=(in_depth, around, around), bias=shifted)
    y = torch.func.functional_call(ours, dict(zip(("weight", "bias"), inputs[1:], strict=False)), x)
    assert is_winograds(y)
    assert y.is_contiguous(memory_format=CHANNELS_LAST[5] if any(layouts[:2]) else torch.contiguous_format)
    g = drawn(*y.shape, seed=3, dtype=dtype, channels_last=layouts[2])
    found = torch.autograd.grad(y, inputs, g)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    true = F.conv3d(*exact, padding=(in_depth, around, around))
    of_exact = torch.autograd.grad(true, exact, g.double())
    for f, e in zip((y, *found), (true, *of_exact), strict=True):
        assert close(f, e, TOLERANCE[dtype])
    if deep and in_depth == around:
        assert torch.equal(winograd_conv(*inputs, padding=around), y)


@both
def test_the_same_bits_of_volumes_whatever_the_threads(dtype):
    x, W = drawn(2, 16, 9, 13, 21, dtype=dtype).requires_grad_(), drawn(32, 16, 3, 3, 3, dtype=dtype).requires_grad_()

    def outcome():
        y = winograd_conv(x, W, padding=1)
        return y, *torch.autograd.grad(y.sin().sum(), (x, W))

    assert is_winograds(the_same_by_threads(outcome)[0])


@layouts
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 0, "bias": False},
        {"padding": "same"},
        {"padding": "valid"},
        {"padding": 2},
        {"padding_mode": "reflect"},
        {"padding_mode": "circular"},
        {"padding": (1, 0)},
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"kernel_size": 5},
    ],
    ids=str,
)
def test_the_layer_is_torchs(options, channels_last):
    x = drawn(2, 16, 9, 7, channels_last=channels_last)
    options = {"kernel_size": 3, "padding": 1, **options}
    ours = WinogradConv2d(16, 32, **options)
    theirs = nn.Conv2d(16, 32, **options)
    theirs.load_state_dict(ours.state_dict())
    assert repr(ours) == repr(theirs).replace("Conv2d", "WinogradConv2d")
    y, expected = ours(input=x), theirs(x)
    plain = {"padding": (1, 0), "stride": 2, "dilation": 2, "groups": 2, "kernel_size": 5}
    assert is_winograds(y) != any(plain.get(name) == value for name, value in options.items())
    assert y.stride() == expected.stride()
    assert close(y, expected, 1e-5)
    assert close(ours(x[0]), theirs(x[0]), 1e-6)
    assert ours(x[:0]).shape == theirs(x[:0]).shape
    assert copy.deepcopy(ours).to("meta")(x.to("meta")).shape == expected.shape


@dimensions
@layouts
def test_under_autocast(dimensions, channels_last):
    x = image(dimensions, channels_last=channels_last).requires_grad_()
    results = []
    for conv in layer(dimensions, channels_last):
        with torch.autocast("cpu", torch.bfloat16):
            y = conv(x)
        results.append((y, *torch.autograd.grad(y.float().sin().sum(), [x, *conv.parameters()])))
    assert is_winograds(results[0][0])
    for f, e in zip(*results, strict=True):
        assert (f.dtype, f.stride()) == (e.dtype, e.stride())
        assert close(f, e, 2e-2)


@layouts
def test_under_autocast_weights_are_neither_copied_nor_their_gradients_rounded(channels_last):
    conv, _ = layer(2, channels_last)
    x = image(2, channels_last=channels_last).bfloat16().requires_grad_()
    with torch.profiler.profile(record_shapes=True) as profile, torch.autocast("cpu", torch.bfloat16):
        conv(x).backward(g := drawn(2, 32, 9, 7).bfloat16())
    events = {(event.name, str(event.input_shapes[:1])) for event in profile.events()}
    assert not events & {("aten::copy_", "[[32, 16, 3, 3]]"), ("aten::sum", "[[2, 32, 9, 7]]")}
    exact = [t.detach().double().requires_grad_() for t in (x, conv.weight, conv.bias)]
    F.conv2d(*exact, padding=1).backward(g.double())
    assert close(conv.weight.grad, exact[1].grad, 1e-5)
    assert close(conv.bias.grad, exact[2].grad, 1e-5)


@layouts
@frozen_ones
def test_what_needs_no_gradient(frozen, channels_last):
    assert_same_gradients_beside(frozen, *layer(2, channels_last), image(2, channels_last=channels_last))


@dimensions
@layouts
def test_what_torch_transforms_and_what_is_done_behind_it(dimensions, channels_last):
    x = image(dimensions, channels_last=channels_last).requires_grad_()
    assert_same_whatever_is_done(*layer(dimensions, channels_last), x)


@dimensions
def test_it_keeps_for_the_backward_what_torchs_keeps(dimensions):
    ours, theirs = (kept(conv, image(dimensions)) for conv in layer(dimensions))
    assert ours == theirs


def test_only_where_it_pays(monkeypatch):
    monkeypatch.undo()
    conv = WinogradConv2d(32, 32, 3, padding=1)
    large, small = drawn(2, 32, 64, 64), drawn(2, 32, 16, 16)
    assert [is_winograds(conv(x)) for x in (large, small)] == [True, False]
    with torch.autocast("cpu", torch.bfloat16):
        assert [is_winograds(conv(x)) for x in (large, small)] == [not has_amx(), False]
    with torch.autocast("cpu", torch.float16):
        assert not is_winograds(conv(large))
    many = WinogradConv2d(368, 16, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        wide = [drawn(1, 368, 64, 64, channels_last=last) for last in (False, True)]
        assert [is_winograds(many(x)) for x in wide] == [False, not has_amx()]  # one of them is rearranged
    conv = WinogradConv3d(32, 32, 3, padding=1)
    assert [is_winograds(conv(drawn(2, 32, *size))) for size in ((8, 16, 16), (1, 32, 32))] == [True, False]


@dimensions
def test_errors_are_torchs(dimensions):
    ours, theirs = layer(dimensions)
    right = image(dimensions)
    for x in (right[:, 1:], right.bfloat16(), right[0, 0], right.int(), right[..., :0]):
        messages = []
        for conv in (ours, theirs):
            with pytest.raises(RuntimeError) as raised:
                conv(x)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]


def test_parametrized_weights_other_dtypes_forms_and_no_compiler():
    x = drawn(1, 16, 9, 7)
    for normalize in (nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm):
        normalized = []
        for conv in layer():
            torch.manual_seed(1)
            normalized.append(normalize(conv)(x))
        assert is_winograds(normalized[0])
        assert close(*normalized, 1e-5)
    ours, theirs = layer()
    assert torch.equal(ours.double()(x.double()), theirs.double()(x.double()))
    ours, theirs = layer()
    with use_impl("reference"):
        assert torch.equal(ours(x), theirs(x))
    with native_loops(False):
        assert torch.equal(ours(x), theirs(x))
    y = ours(x)
    with native_loops(False):
        y.sum().backward()
    assert close(ours.weight.grad, torch.autograd.grad(theirs(x).sum(), theirs.weight)[0], 1e-5)


@dimensions
def test_a_parametrization_is_computed_once_a_forward(dimensions):
    class Counted(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            calls.append(weight)
            return weight * 1

    ours, _ = layer(dimensions)
    nn.utils.parametrize.register_parametrization(ours, "weight", Counted(), unsafe=True)
    calls: list[Tensor] = []
    assert is_winograds(ours(image(dimensions)))
    assert len(calls) == 1


@dimensions
@pytest.mark.parametrize("name", ["padding", "stride", "dilation", "kernel_size"])
def test_sizes_may_be_assigned_as_torch_takes_them(dimensions, name):
    x = image(dimensions)
    for value in (1, (1,), [1] * dimensions):
        ours, theirs = layer(dimensions)
        for conv in (ours, theirs):
            setattr(conv, name, value)
        accelerate(theirs_too := copy.deepcopy(theirs))
        for conv in (ours, theirs_too):
            assert close(conv(x), theirs(x), 1e-5)


@dimensions
def test_what_somebody_put_in_place_of_torchs_call_is_called(dimensions):
    ours, theirs = layer(dimensions)
    x = image(dimensions)
    ours._conv_forward = lambda x, weight, bias: -type(theirs)._conv_forward(theirs, x, weight, bias)
    assert torch.equal(ours(x), -theirs(x))


@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_infinite_or_nan_is_so_near_by(value):
    ours, theirs = layer()
    x = drawn(1, 16, 16, 16)
    x[0, 3, 5, 5] = value
    finite = ours(x).isfinite()
    assert not (finite & ~theirs(x).isfinite()).any()
    assert finite[:, :, 8:].all()
    assert finite[:, :, :, 8:].all()


@dimensions
def test_its_operations_are_counted(dimensions):
    ours, theirs = layer(dimensions)
    x = drawn(1, 16, *[16] * dimensions)
    with FlopCounterMode(display=False) as of_torchs:
        theirs(x)
    assert count(lambda: ours(x)).gflop == pytest.approx(of_torchs.get_total_flops() / 4e9)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_layer_runs_loops_where_the_function_does(autocast, monkeypatch):
    """It asks by sizes first."""
    monkeypatch.undo()
    found, formats = set(), (torch.contiguous_format, torch.channels_last)
    for channels, side, layout in itertools.product((16, 64, 128), (5, 16, 33), formats):
        layer = WinogradConv2d(channels, channels, 3, padding=1)
        x = torch.randn(2, channels, side, side).contiguous(memory_format=layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            names = [y.grad_fn.name() for y in (layer(x), winograd_conv(x, layer.weight, layer.bias, 1))]
        assert names[0] == names[1] or x.numel() * channels < fused.MANY
        found.add(names[0])
    assert len(found) == (1 if autocast and has_amx() else 2)
