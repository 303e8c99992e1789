"""Convolutions as products with their weights as they lie: against torch's, in all that users see."""

import copy
import io
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lorbms_fast.kernels import (
    ProductConv2d,
    ProductConv3d,
    ProductConvTranspose2d,
    ProductConvTranspose3d,
    WinogradConv2d,
    accelerate,
    product_conv,
    product_conv_transposed,
    restore,
    use_impl,
)
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels._common.layout import CHANNELS_LAST
from lorbms_fast.kernels._common.of_torch import has_amx
from lorbms_fast.kernels._common.winograd import cpp as winograd
from lorbms_fast.kernels.product_conv import fused
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

# Of the largest result: all is summed in float32, and results of bfloat16 are rounded once.
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-8}
OURS = {nn.Conv2d: ProductConv2d, nn.Conv3d: ProductConv3d}
OURS |= {nn.ConvTranspose2d: ProductConvTranspose2d, nn.ConvTranspose3d: ProductConvTranspose3d}
kinds = pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)


@pytest.fixture(autouse=True)
def everywhere(monkeypatch):
    """Take all shapes whose channels come in vectors, whether it pays or not."""
    if not winograd.runs():
        pytest.skip("no AVX2, or no C++ compiler")
    monkeypatch.setattr(fused, "pays", lambda positions, weight, dtype, multiplied: dtype in TOLERANCE)
    monkeypatch.setattr(fused, "may_pay", lambda *_: True)
    monkeypatch.setattr(fused, "LEAST", 0)
    monkeypatch.setattr(fused, "MOST", 1 << 20)


def is_ours(y: Tensor) -> bool:
    return type(y.grad_fn).__name__ == "_ProductBackward"


def made(kind: type, channels_last: bool = False, **options: object) -> tuple[nn.Module, nn.Module, Tensor]:
    """Ours and torch's, with the same parameters, and what they read."""
    torch.manual_seed(0)
    theirs = kind(16, 32, **{"kernel_size": 4, "stride": 2, "padding": 1, **options})
    dimensions = len(theirs.kernel_size)
    if channels_last:
        theirs = theirs.to(memory_format=CHANNELS_LAST[2 + dimensions])
    ours = copy.deepcopy(theirs)
    ours.__class__ = OURS[kind]
    return ours, theirs, drawn(2, 16, *(5, 6, 4)[:dimensions], channels_last=channels_last)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "transposed"])
@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(1, 3), C=st.sampled_from([16, 48]), O=st.sampled_from([16, 32]),
    axes=st.lists(
        st.tuples(st.integers(1, 5), st.integers(2, 4), st.integers(1, 3), st.integers(0, 1), st.integers(0, 1)),
        min_size=2, max_size=3,
    ),
    layouts=st.tuples(*[st.booleans()] * 3), shifted=st.booleans(), count=st.integers(1, 3),
)  # fmt: skip
def test_as_in_float64_and_laid_out_as_torchs(dtype, transposed, n, C, O, axes, layouts, shifted, count):
    if not transposed:
        axes = [(max(size, k - 2 * p), k, s, p, 0) for size, k, s, p, _ in axes]
    axes = [(size + (p if transposed else 0), k, s, p, min(more, s - 1)) for size, k, s, p, more in axes]
    size, taps, stride, padding, more = (tuple(numbers) for numbers in zip(*axes, strict=True))
    shapes = (n, C, *size), (C, O, *taps) if transposed else (O, C, *taps)
    x, W = (drawn(*shape, seed=i, channels_last=layouts[i]) for i, shape in enumerate(shapes))
    inputs = [x.to(dtype).requires_grad_(), W.requires_grad_(), *([drawn(O).requires_grad_()] if shifted else [])]
    sizes = (stride, padding, more) if transposed else (stride, padding)

    def of_torch(x, W, b=None):
        kind = f"conv_transpose{len(size)}d" if transposed else f"conv{len(size)}d"
        return getattr(F, kind)(x, W, b, *sizes)

    cast = [t.detach().to(dtype).requires_grad_() for t in inputs]
    theirs = of_torch(*cast)
    with threads(count):
        with torch.autocast("cpu", enabled=dtype == torch.bfloat16):
            function = product_conv_transposed if transposed else product_conv
            y = function(*inputs, *([] if shifted else [None]), *sizes)
        g = drawn(*y.shape, seed=3, channels_last=layouts[2]).to(dtype)
        found = torch.autograd.grad(y, inputs, g)
    assert is_ours(y)
    assert y.dtype == dtype
    if len(size) == 2 or n > 1:  # of small single volumes torch's older code makes contiguous ones
        assert y.stride() == theirs.stride()
        assert found[0].stride() == torch.autograd.grad(theirs, cast[:1], g)[0].stride()
    exact = [t.detach().double().requires_grad_() for t in inputs]
    true = of_torch(*exact)
    for f, e in zip((y, *found), (true, *torch.autograd.grad(true, exact, g.double())), strict=True):
        assert close(f, e, TOLERANCE[f.dtype])
    assert [f.stride() for f in found[1:]] == [t.stride() for t in inputs[1:]]


@kinds
def test_the_same_bits_whatever_the_threads(kind):
    ours, _, x = made(kind)

    def outcome():
        y = ours(x.requires_grad_())
        return y, *torch.autograd.grad(y.sin().sum(), [x, *ours.parameters()])

    assert is_ours(the_same_by_threads(outcome)[0])


@kinds
@layouts
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 0, "bias": False},
        {"kernel_size": 2, "padding": 0},
        {"kernel_size": (2, 3)},
        {"padding": "valid", "stride": 1},
        {"padding_mode": "circular"},
        {"dilation": 2},
        {"groups": 2},
        {"kernel_size": 1, "padding": 0},
        {"out_channels": 24},
    ],
    ids=str,
)
def test_the_layer_is_torchs(kind, options, channels_last):
    transposed, dimensions = "Transpose" in kind.__name__, 3 if "3d" in kind.__name__ else 2
    if transposed and ("padding_mode" in options or isinstance(options.get("padding"), str)):
        pytest.skip("torch's has none")
    options = {"kernel_size": 4, "stride": 2, "padding": 1, "out_channels": 32, **options}
    if isinstance(options["kernel_size"], tuple):
        options["kernel_size"] = (*options["kernel_size"], 2)[:dimensions]
    torch.manual_seed(0)
    ours, theirs = OURS[kind](16, **options), kind(16, **options)
    theirs.load_state_dict(ours.state_dict())
    if channels_last:
        ours, theirs = (conv.to(memory_format=CHANNELS_LAST[2 + dimensions]) for conv in (ours, theirs))
    x = drawn(2, 16, *(5, 6, 5)[:dimensions], channels_last=channels_last)
    assert repr(ours) == repr(theirs).replace("Conv", "ProductConv", 1)
    y, expected = ours(input=x), theirs(x)
    plain = {"padding": "valid", "padding_mode": "circular", "dilation": 2, "groups": 2, "kernel_size": 1}
    assert is_ours(y) != any(plain.get(n) == o for n, o in options.items()) or options["out_channels"] == 24
    assert y.stride() == expected.stride()
    assert close(y, expected, 1e-5)
    assert close(ours(x[0]), theirs(x[0]), 1e-5)
    assert ours(x[:0]).shape == theirs(x[:0]).shape
    assert copy.deepcopy(ours).to("meta")(x.to("meta")).shape == expected.shape
    if transposed and dimensions == 2:
        size = [side + 1 for side in y.shape[2:]]
        assert close(ours(x, output_size=size), theirs(x, output_size=size), 1e-5)


@kinds
@layouts
def test_under_autocast_weights_are_neither_copied_nor_their_gradients_rounded(kind, channels_last):
    ours, theirs, x = made(kind, channels_last)
    x.requires_grad_()
    with torch.profiler.profile(record_shapes=True) as profile, torch.autocast("cpu", torch.bfloat16):
        y = ours(x)
    assert is_ours(y)
    assert y.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert y.stride() == theirs(x).stride()
    copied = {str(event.input_shapes[:1]) for event in profile.events() if event.name == "aten::copy_"}
    assert str([list(ours.weight.shape)]) not in copied
    g = drawn(*y.shape).bfloat16()
    found = torch.autograd.grad(y, [x, *ours.parameters()], g)
    exact = theirs.double()
    of_x = x.detach().bfloat16().double().requires_grad_()
    expected = torch.autograd.grad(exact(of_x), [of_x, *exact.parameters()], g.double())
    for f, e, tolerance in zip(found, expected, (2**-8, 1e-5, 1e-5), strict=True):
        assert f.dtype == torch.float32
        assert close(f, e, tolerance)


@kinds
@frozen_ones
def test_what_needs_no_gradient(kind, frozen):
    assert_same_gradients_beside(frozen, *made(kind))


@kinds
@layouts
def test_what_torch_transforms_and_what_is_done_behind_it(kind, channels_last):
    ours, theirs, x = made(kind, channels_last)
    assert is_ours(ours(x.requires_grad_()))
    assert_same_whatever_is_done(ours, theirs, x)


def test_one_image_of_another_stride_is_laid_out_as_torchs():
    conv, x = ProductConv2d(16, 32, 3), drawn(5, 6, 16).permute(2, 0, 1)[None]
    assert is_ours(conv(x))
    assert conv(x).is_contiguous() == F.conv2d(x, conv.weight).is_contiguous()


@kinds
def test_it_keeps_for_the_backward_what_torchs_keeps(kind):
    ours, theirs, x = made(kind)
    assert kept(ours, x) == kept(theirs, x)


@kinds
def test_errors_are_torchs(kind):
    *convs, right = made(kind)
    for x in (right[:, 1:], right.bfloat16(), right[0, 0], right.int(), right[..., :0]):
        messages = []
        for conv in convs:
            with pytest.raises(RuntimeError) as raised:
                conv(x)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]


@pytest.mark.parametrize("sizes", [(0, 0), (-1, 0), (1, -1), (2, 1, 2), (2, 1, -1)], ids=str)
def test_no_strides_and_edges_that_torch_refuses(sizes):
    x, weight = drawn(1, 32, 4, 4), drawn(32, 32, 3, 3)
    forms = [(F.conv_transpose2d, product_conv_transposed)] + [(F.conv2d, product_conv)] * (len(sizes) == 2)
    for pair in forms:
        messages = []
        for convolve in pair:
            with pytest.raises(RuntimeError) as raised:
                convolve(x, weight, None, *sizes)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]


def test_parametrized_weights_other_dtypes_forms_and_no_compiler():
    *_, x = made(nn.Conv2d)
    normalized = []
    for conv in made(nn.Conv2d)[:2]:
        torch.manual_seed(1)
        normalized.append(nn.utils.parametrizations.spectral_norm(conv)(x))
    assert is_ours(normalized[0])
    assert close(*normalized, 1e-5)
    ours, theirs, _ = made(nn.Conv2d)
    assert torch.equal(ours.double()(x.double()), theirs.double()(x.double()))
    ours, theirs, _ = made(nn.Conv2d)
    y = ours(x)
    with use_impl("reference"):
        assert torch.equal(ours(x), theirs(x))
    with native_loops(False):
        assert torch.equal(ours(x), theirs(x))
        y.sum().backward()
    assert close(ours.weight.grad, torch.autograd.grad(theirs(x).sum(), theirs.weight)[0], 1e-5)
    ours.stride = theirs.stride = 3  # as torch takes it
    assert torch.equal(ours(x), theirs(x))
    with pytest.raises(ValueError, match="impl"):
        ProductConv2d(16, 16, 3, impl="fast")


@pytest.mark.parametrize("kind", [nn.ConvTranspose2d, nn.ConvTranspose3d], ids=lambda kind: kind.__name__)
@layouts
@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16", "autocast"])
def test_bias_gradients_of_torchs_transposed_ones_are_summed_apart(kind, channels_last, autocast, monkeypatch):
    monkeypatch.undo()
    ours, theirs, x = made(kind, channels_last, output_padding=1)
    if not autocast:
        ours, theirs, x = ours.bfloat16(), theirs.bfloat16(), x.bfloat16()
    x.requires_grad_()
    g, found = None, []
    for conv in (ours, theirs):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = conv(x)
        g = drawn(*y.shape).bfloat16() if g is None else g
        found.append([y, *torch.autograd.grad(y, [x, *conv.parameters()], g, retain_graph=True)])
        (slope,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        found[-1] += torch.autograd.grad(slope.float().square().sum(), [x, conv.weight])
    assert type(found[0][0].grad_fn).__name__ == "_OfTorchBackward"
    for f, e in zip(*found, strict=True):
        assert (f.dtype, f.stride()) == (e.dtype, e.stride())
        assert close(f, e, 2**-7)
    assert close(found[0][3], g.double().sum((0, *range(2, g.dim()))), 1e-6 if autocast else 2**-8)
    ours.bias.requires_grad_(False)
    assert type(ours(x).grad_fn).__name__ == "ConvolutionBackward0"


def test_only_where_it_pays(monkeypatch):
    monkeypatch.undo()
    conv, up = ProductConv2d(256, 256, 4, 2, 1), ProductConvTranspose2d(256, 128, 4, 2)
    few, many = drawn(1, 256, 8, 8), drawn(1, 256, 32, 32)
    assert [is_ours(layer(x)) for layer in (conv, up) for x in (few, many)] == [True, False, True, False]
    with torch.autocast("cpu", torch.bfloat16):
        assert is_ours(conv(few)) != has_amx()
    with torch.autocast("cpu", torch.float16):
        assert not is_ours(conv(few))
    taps = drawn(256, 256, 4, 4)
    compiled = torch.compile(lambda x: product_conv(x, taps, None, 2, 1), fullgraph=True, backend="eager")
    assert close(compiled(few), product_conv(few, taps, None, 2, 1), 1e-5)
    deep = WinogradConv2d(256, 256, 3, padding=1)
    assert is_ours(deep(few))
    assert close(deep(few), F.conv2d(few, deep.weight, deep.bias, padding=1), 1e-5)
    assert not is_ours(ProductConv2d(1024, 16, 4, 2, 1)(drawn(1, 1024, 8, 8)))  # to copy what is seen takes the time
    assert not is_ours(ProductConv2d(64, 64, 3, 2)(drawn(1, 64, 9, 9)))  # calls take the time
    assert not is_ours(ProductConv2d(256, 256, 3, 2)(drawn(1, 256, 5, 5)))  # torch, too, has a product for it


def test_accelerate_takes_large_weights_and_restores(monkeypatch):
    monkeypatch.undo()
    model = nn.Sequential(
        nn.Conv2d(3, 128, 4, 2, 1), nn.Conv2d(128, 256, 4, 2, 1), nn.Conv2d(256, 256, 4, 2, 1), nn.ReLU(),
        nn.ConvTranspose2d(256, 128, 4, 2, 1),
    )  # fmt: skip
    x = drawn(1, 3, 32, 32).requires_grad_()
    before = model(x)
    expected = torch.autograd.grad(before.sin().sum(), [x, *model.parameters()])
    report = accelerate(model)
    assert [finding.where for finding in report] == ["1", "2", "4"]
    assert all(finding.why_not is None and finding.what.startswith("Conv") for finding in report)
    y = model(x)
    assert is_ours(y)
    assert close(y, before, 1e-5)
    for f, e in zip(torch.autograd.grad(y.sin().sum(), [x, *model.parameters()]), expected, strict=True):
        assert close(f, e, 1e-4)
    torch.save(model, file := io.BytesIO())
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), y)
    restore(model)
    assert {type(module) for module in model} == {nn.Conv2d, nn.ReLU, nn.ConvTranspose2d}


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", [ProductConv2d, ProductConvTranspose2d])
def test_a_layer_multiplies_where_the_function_does(kind, autocast, monkeypatch):
    """It asks by sizes first."""
    monkeypatch.undo()
    function, found = product_conv_transposed if kind is ProductConvTranspose2d else product_conv, set()
    for n, side in itertools.product((1, 3), (2, 4, 6, 9, 16)):
        layer, x = kind(128, 192, 4, 2, 1, bias=False), torch.randn(n, 128, side, side)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            names = [y.grad_fn.name() for y in (layer(x), function(x, layer.weight, None, 2, 1))]
        assert names[0] == names[1]
        found.add(names[0])
    assert len(found) == (1 if autocast and has_amx() else 2)
