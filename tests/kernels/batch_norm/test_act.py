"""Batch norm with an activation behind it, against torch's layers in float64: results, gradients, statistics."""

import copy
import random

import pytest
import torch
from torch import nn

from lorbms_fast.kernels import BatchNormAct, BatchNormAct2d, BatchNormAct3d, batch_norm_act, use_impl
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels.batch_norm import fused
from lorbms_fast.kernels.instance_norm import cpp
from tests.kernels import norms
from tests.kernels.norms import (
    ACTIVATIONS,
    EXACTLY,
    TOLERANCES,
    assert_as_exact,
    assert_gradients_as_exact,
    assert_same_results,
    kept,
    of_any_shape,
    results,
)
from tests.kernels.threads import the_same_by_threads

LAYOUTS = norms.LAYOUTS | {
    "part of rows": lambda x: torch.cat([x, x], 2).movedim(1, -1).contiguous().movedim(-1, 1)[:, :, x.shape[2] :],
}
compiled = pytest.mark.skipif(not cpp.take(torch.ones(1, 1, 2, 2)), reason="no C++ compiler")


@pytest.fixture(autouse=True)
def loops_wherever_they_go(monkeypatch):
    """Also where torch's own are known to be quicker."""
    monkeypatch.setattr(fused, "_faster", lambda shape, strides, dtype, *_: fused.go_through(shape, strides, dtype))


def pair(shape, activation, dtype=torch.float64, **options):
    """Torch's in float64 and ours with the same parameters."""
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[len(shape) - 2]
    act = {1: BatchNormAct, 2: BatchNormAct2d, 3: BatchNormAct3d}[len(shape) - 2]
    theirs = nn.Sequential(norm(shape[1], **options), copy.deepcopy(ACTIVATIONS[activation])).double()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours = act(shape[1], ACTIVATIONS[activation], **options).double()
    ours.load_state_dict(theirs[0].state_dict())
    return theirs, ours.to(dtype)


def assert_as_torchs(shape, activation, dtype, layout, shift=0.0, seed=0, **options):
    torch.manual_seed(seed)
    theirs, ours = pair(shape, activation, torch.promote_types(dtype, torch.float32), **options)
    x, probe = LAYOUTS[layout]((torch.randn(shape) + shift).to(dtype)), torch.randn(shape).to(dtype)
    assert_same_results(ours, theirs, x, probe, layout)


@of_any_shape(LAYOUTS)
def test_of_any_shape(sizes, width, activation, affine, dtype, layout):
    if dtype == torch.float32 and sizes[0] * sizes[-1] * width < 32:  # few values may be nearly one
        dtype = torch.float64
    assert_as_torchs((*sizes, width), activation, dtype, layout, affine=affine)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forms_and_dtypes(activation, layout, native):
    with native_loops(native):
        for dtype in TOLERANCES:
            assert_as_torchs((2, 37, 5, 9), activation, dtype, layout, shift=1.0)
            assert_as_torchs((3, 24, 5, 9), activation, dtype, layout, shift=1.0)
        assert_as_torchs((1, 33, 3, 5, 4), activation, torch.float32, layout, affine=False)
        assert_as_torchs((2, 3, 70, 91), activation, torch.float32, layout)  # rows of several lines, and a rest
        assert_as_torchs((3, 70, 40, 41), activation, torch.float32, layout)  # several spans


@pytest.mark.parametrize("options", [{"momentum": None}, {"momentum": 0.3}, {"track_running_stats": False}], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_running_statistics(layout, options):
    theirs, ours = pair((2, 5, 4, 6), "relu", **options)
    for _ in range(3):
        x, probe = LAYOUTS[layout](torch.randn(2, 5, 4, 6).double()), torch.randn(2, 5, 4, 6)
        for f, e in zip(results(ours, x, probe), results(theirs, x, probe), strict=True):
            torch.testing.assert_close(f, e)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))
    torch.testing.assert_close(ours.state_dict(), theirs[0].state_dict())


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_a_layer_of_16_bits(layout):
    """Whose running statistics and parameters have them as well."""
    theirs, ours = pair((4, 6, 8, 8), "silu", torch.bfloat16)
    x, probe = LAYOUTS[layout](torch.randn(4, 6, 8, 8).bfloat16()), torch.randn(4, 6, 8, 8)
    for f, e in zip(results(ours, x, probe), results(theirs, x.double(), probe), strict=True):
        torch.testing.assert_close(f.double(), e.double(), rtol=3e-2, atol=3e-2)
    assert ours.running_mean.dtype == torch.bfloat16


def test_autocast():
    theirs, ours = pair((2, 6, 8, 8), "relu", torch.float32)
    x = torch.randn(2, 6, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16):
            found, expected = ours(x.to(dtype)), theirs.float()(x.to(dtype))
            assert found.dtype == expected.dtype
            torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("maps", EXACTLY)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_as_exact_as_torch(layout, maps):
    theirs = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    assert_as_exact(BatchNormAct2d(3), theirs, LAYOUTS[layout], maps)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_gradients_as_exact_as_torchs(layout):
    assert_gradients_as_exact(BatchNormAct2d(32, "identity"), nn.BatchNorm2d(32), LAYOUTS[layout])


@pytest.mark.parametrize("channels", [3, 16, 24, 32])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_a_map_of_no_numbers_is_alone(channels, layout):
    x = LAYOUTS[layout](torch.randn(2, channels, 4, 4))
    x[1, 2, 1, 1] = torch.nan
    y = BatchNormAct2d(channels)(x.requires_grad_())
    (to_x,) = torch.autograd.grad(y, x, torch.ones_like(y))
    for maps in (y, to_x):
        assert maps[:, 2].isnan().all()
        assert maps.isnan().sum() == 32


@compiled
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_results_do_not_depend_on_the_number_of_threads(layout):
    _, ours = pair((3, 40, 33, 35), "leaky_relu", torch.float32)
    x, probe = LAYOUTS[layout](torch.randn(3, 40, 33, 35)), torch.randn(3, 40, 33, 35)
    the_same_by_threads(lambda: results(copy.deepcopy(ours), x, probe))


@compiled
@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "identity"])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_one_tensor_is_kept(activation, layout):
    theirs, ours = pair((2, 8, 16, 16), activation, torch.float32)
    assert kept(ours, layout) == 1
    assert kept(theirs.float(), layout) >= 2


@pytest.mark.parametrize("native", [pytest.param(True, marks=compiled), False])
def test_leaky_relu_in_place_keeps_no_more(native):
    """Whichever runs; in place behind the norm nothing is kept that was not asked for."""

    def kept(layers):
        x, saved = torch.randn(2, 8, 16, 16).requires_grad_(), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            y = layers(x * 1) * 1.5
        y.sum().backward()
        return len({t.untyped_storage().data_ptr() for t in saved if t.numel() == x.numel()})

    layer = BatchNormAct2d(8, "leaky_relu")
    layer.inplace = True
    with native_loops(native):
        assert kept(layer) <= kept(nn.Sequential(nn.BatchNorm2d(8), nn.LeakyReLU(inplace=True)))


@compiled
def test_profilers_see_one_operation_that_does_what_a_call_does():
    layer, x = BatchNormAct2d(3), torch.randn(2, 3, 4, 4)
    other = copy.deepcopy(layer)
    with torch.profiler.profile() as profiled:
        seen = results(layer, x, torch.ones_like(x))
    names = [event.key for event in profiled.key_averages() if event.key.startswith("lorbms_fast::")]
    assert sorted(names) == ["lorbms_fast::batch_norm_maps", "lorbms_fast::instance_norm_maps_backward"]
    for f, e in zip(results(other, x, torch.ones_like(x)), seen, strict=True):
        assert torch.equal(f, e)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_maps_and_gradients_that_are_to_be_negated(layout):
    layer, x, probe = BatchNormAct2d(3), LAYOUTS[layout](torch.randn(2, 3, 4, 4)), torch.randn(2, 3, 4, 4)
    negated = [torch._neg_view(-t).detach().requires_grad_() for t in (x, LAYOUTS[layout](probe))]
    expected = torch.autograd.grad(layer(x.requires_grad_()), x, probe)
    found = torch.autograd.grad(layer(negated[0]), negated[0], negated[1].detach())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "behind",
    {
        "beside other rows": lambda y: torch.cat([y, y.detach()], 2),
        "beside other maps": lambda y: torch.cat([y, y.detach()], 1),
        "sum of samples": lambda y: y.sum(0),
        "sum of positions": lambda y: y.sum((2, 3)),
        "between others": lambda y: torch.stack([y, y.detach()], 3),
    }.items(),
    ids=lambda behind: behind[0],
)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_gradients_lie_in_any_way(layout, behind):
    theirs, ours = pair((3, 5, 6, 4), "leaky_relu")
    x = LAYOUTS[layout](torch.randn(3, 5, 6, 4).double())
    probe = torch.randn_like(behind[1](x))
    found, expected = (results(nn.Sequential(layers, Behind(behind[1])), x, probe) for layers in (ours, theirs))
    torch.testing.assert_close(found, expected)


class Behind(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, y):
        return self.function(y)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_derivatives(activation, layout):
    """Of first and second order, and many gradients at once."""
    layer = BatchNormAct2d(2, ACTIVATIONS[activation], track_running_stats=False).double()
    x = LAYOUTS[layout](torch.randn(2, 2, 3, 3, dtype=torch.float64)).requires_grad_()
    inputs = x, *layer.parameters()

    def function(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, x)

    assert torch.autograd.gradcheck(function, inputs, fast_mode=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_transforms_of_torch():
    layer = BatchNormAct2d(3, "silu", track_running_stats=False).double()
    x = torch.randn(4, 2, 3, 5, 5).double()
    torch.testing.assert_close(torch.vmap(layer)(x), torch.stack([layer(part) for part in x]))
    _, tangent = torch.func.jvp(layer, (x[0],), (x[1],))
    (expected,) = torch.autograd.functional.jvp(layer, x[0], x[1])[1:]
    torch.testing.assert_close(tangent, expected)
    traced = torch.jit.trace(layer, x[0])
    torch.testing.assert_close(traced(x[1]), layer(x[1]))
    for scripted in (torch.jit.script(BatchNormAct2d(3, "leaky_relu")), torch.jit.script(BatchNormAct2d(3).eval())):
        module = BatchNormAct2d(3, "leaky_relu" if scripted.training else "relu").train(scripted.training)
        torch.testing.assert_close(scripted(x[0].float()), module(x[0].float()))
        torch.testing.assert_close(dict(scripted.named_buffers()), dict(module.named_buffers()))
    graph = torch.fx.symbolic_trace(nn.Sequential(layer, nn.Identity())).graph
    assert [node.target for node in graph.nodes if node.op == "call_module"] == ["0", "1"]


def test_compiled_exported_and_in_the_other_forms():
    layer = BatchNormAct2d(3, "leaky_relu")
    x = torch.randn(2, 3, 4, 5)
    torch._dynamo.reset()
    expected = copy.deepcopy(layer)
    y = expected(x)
    other = copy.deepcopy(layer)
    torch.testing.assert_close(torch.compile(other, fullgraph=True, backend="aot_eager")(x), y)
    torch.testing.assert_close(other.state_dict(), expected.state_dict())
    for form in ("reference", "fused"):
        other = copy.deepcopy(layer)
        with use_impl(form):
            torch.testing.assert_close(other(x), y)
        torch.testing.assert_close(other.state_dict(), expected.state_dict())
    torch.testing.assert_close(batch_norm_act(x, "leaky_relu"), y)


def test_errors_and_empty_batches_are_torchs():
    for kind, shape in ((BatchNormAct2d, (3, 4, 5)), (BatchNormAct3d, (3, 2, 4, 5))):
        layer, dimensions = kind(3), len(shape)
        with pytest.raises(ValueError, match=f"expected {dimensions + 1}D input"):
            layer(torch.randn(shape))
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            layer(torch.randn(1, 3, *[1] * (dimensions - 1)))
        with pytest.raises(RuntimeError, match="running_mean should contain 4 elements"):
            layer(torch.randn(2, 4, *shape[1:]))
        with pytest.raises(RuntimeError, match="weight should contain 4 elements"):
            batch_norm_act(torch.randn(2, 4, *shape[1:]), weight=layer.weight, bias=layer.bias)
        assert layer(torch.randn(0, *shape)).shape == (0, *shape)
        assert layer.to("meta")(torch.randn(2, *shape, device="meta")).shape == (2, *shape)
    with pytest.raises(ValueError, match="3D input or more"):
        BatchNormAct(3)(torch.randn(2, 3))
    with pytest.raises(ValueError, match="choose one of"):
        BatchNormAct2d(3, "tanh")


@pytest.mark.parametrize("activation", [pytest.param("relu", marks=compiled), "leaky_relu", "silu"])
def test_in_place_behind_it(activation):
    theirs, ours = pair((2, 4, 5, 5), activation)
    x, probe = torch.randn(2, 4, 5, 5).double(), torch.randn(2, 4, 5, 5)
    layers = [
        nn.Sequential(layer, nn.ReLU6(place), nn.Dropout(0.5, place))
        for layer, place in ((theirs, False), (ours, True))
    ]
    torch.manual_seed(0)
    expected = results(layers[0], x, probe)
    torch.manual_seed(0)
    for f, e in zip(results(layers[1], x, probe), expected, strict=True):
        torch.testing.assert_close(f, e)


def test_a_layer_names_its_activation():
    layer = BatchNormAct2d(3, nn.LeakyReLU(0.2))
    assert repr(layer) == f"BatchNormAct2d({nn.BatchNorm2d(3).extra_repr()}, activation=leaky_relu, negative_slope=0.2)"
    assert list(layer.state_dict()) == list(nn.BatchNorm2d(3).state_dict())


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "silu"])
def test_one_image_that_is_lines_or_becomes_them(activation, monkeypatch):
    """Where torch 2.13's own misreads maps and gradients, whose one sample has another stride."""
    monkeypatch.setattr(fused, "_faster", lambda *_: False)
    layer, image = BatchNormAct2d(24, activation), torch.randn(8, 8, 24, requires_grad=True)
    probe = torch.randn(8, 8, 24)
    lines, rows, sent = image.permute(2, 0, 1)[None], image.permute(2, 0, 1).contiguous()[None], probe.permute(2, 0, 1)
    (expected,) = torch.autograd.grad(layer(rows), image, sent[None].contiguous(), retain_graph=True)
    for maps in (lines, rows):
        (found,) = torch.autograd.grad(layer(maps), image, sent[None].contiguous(), retain_graph=True)
        torch.testing.assert_close(found, expected)
        (found,) = torch.autograd.grad(layer(maps).squeeze(0).permute(1, 2, 0), image, probe, retain_graph=True)
        torch.testing.assert_close(found, expected)
        y, several = layer(maps).squeeze(0).permute(1, 2, 0), torch.stack([probe, 2 * probe])
        (found,) = torch.autograd.grad(y, image, several, retain_graph=True, is_grads_batched=True)
        torch.testing.assert_close(found, torch.stack([expected, 2 * expected]))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "silu"])
def test_gradients_of_one_sample_that_lie_anyhow(activation, monkeypatch):
    """With gaps, dimensions in any order, and any stride of the sample."""
    monkeypatch.setattr(fused, "_faster", lambda *_: False)
    chance = random.Random(0)
    for _ in range(50):
        shape = 1, chance.choice((1, 2, 3, 8)), *chance.choices((2, 3, 5), k=chance.choice((1, 2, 3)))
        x, order = torch.randn(shape, dtype=torch.float64), chance.sample(range(1, len(shape)), len(shape) - 1)
        laid = torch.zeros([shape[i] + chance.choice((0, 0, 3)) for i in order], dtype=torch.float64)
        strides = [chance.choice((1, 2, shape[1], x.numel(), laid.numel())), *[0] * len(order)]
        for i, stride in zip(order, laid.stride(), strict=True):
            strides[i] = stride
        grad = laid.as_strided(shape, strides).copy_(torch.randn(shape))
        maps = chance.choice((x, x.movedim(1, -1).contiguous().movedim(-1, 1))).requires_grad_()
        y = batch_norm_act(maps, activation)
        (found,) = torch.autograd.grad(y, maps, grad)
        (expected,) = torch.autograd.grad(batch_norm_act(maps, activation, impl="reference"), maps, grad)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("eps", [0.0, -1.0])
def test_no_eps_is_what_torch_makes_of_it(eps, loops, monkeypatch):
    if not loops:
        monkeypatch.setattr(fused, "_faster", lambda *_: False)
    x, found = torch.randn(2, 3, 4, 4), []
    for layers in (BatchNormAct2d(3, eps=eps), nn.Sequential(nn.BatchNorm2d(3, eps=eps), nn.ReLU())):
        try:
            found.append(layers(x).tolist())
        except ValueError as refused:
            found.append(str(refused))
    assert found[0] == found[1]


@pytest.mark.parametrize("positions", [4, 64])
@pytest.mark.parametrize("kinds", [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_parameters_of_two_dtypes_are_refused_as_torch_refuses_them(kinds, positions):
    x = torch.ones(2, 16, positions, positions, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.ones(16, dtype=getattr(torch, kind)) for kind in kinds)
    with pytest.raises(RuntimeError, match="scalar type"):
        nn.functional.batch_norm(x, None, None, weight, bias, training=True)
    with pytest.raises(RuntimeError, match="scalar type"):
        batch_norm_act(x, weight=weight, bias=bias)


@pytest.mark.parametrize("which", ["running_mean", "running_var"])
def test_one_average_alone_is_refused_as_torch_refuses_it(which):
    with pytest.raises(ValueError, match="must either both be None or neither"):
        batch_norm_act(torch.randn(4, 16, 64, 64), **{which: torch.zeros(16)})


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "silu"])
def test_maps_for_which_torchs_own_is_quicker_are_left_to_it_first(activation, monkeypatch):
    monkeypatch.setattr(fused, "_faster", lambda *_: False)
    theirs, ours = pair((2, 3, 4, 4), activation, torch.float32, affine=True)
    x, asked = torch.randn(2, 3, 4, 4), []
    monkeypatch.setattr(fused, "batch_norm", lambda *_: asked.append("batch_norm"))
    assert_same_results(ours, theirs, x, torch.randn(2, 3, 4, 4), "contiguous")
    assert asked == []
    ours(x[:1])  # of one sample gradients may lie in ways that torch misreads
    assert asked == ["batch_norm"]
