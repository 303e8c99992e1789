"""Instance norm with an activation behind it, against torch's layers in float64: results, gradients, memory."""

import copy

import pytest
import torch
from torch import nn

from lorbms_fast.kernels import (
    InstanceNorm2d,
    InstanceNormAct,
    InstanceNormAct2d,
    InstanceNormAct3d,
    instance_norm_act,
    use_impl,
)
from lorbms_fast.kernels._common.activation import named
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels.instance_norm import cpp, fused, modules
from lorbms_fast.measurement.peak import Alive
from tests.kernels.norms import (
    ACTIVATIONS,
    EXACTLY,
    LAYOUTS,
    TOLERANCES,
    assert_as_exact,
    assert_gradients_as_exact,
    assert_same_results,
    kept,
    of_any_shape,
    results,
)


def assert_as_torchs(shape, activation, affine, dtype, layout, shift=0.0):
    torch.manual_seed(0)
    dimensions = len(shape) - 2
    act = {2: InstanceNormAct2d, 3: InstanceNormAct3d}.get(dimensions, InstanceNormAct)
    norm = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dimensions]
    theirs = nn.Sequential(norm(shape[1], affine=affine), ACTIVATIONS[activation]).double()
    ours = act(shape[1], ACTIVATIONS[activation], affine=affine)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours.double().load_state_dict(theirs[0].state_dict())
    ours.to(torch.promote_types(dtype, torch.float32))
    x, probe = LAYOUTS[layout]((torch.randn(shape) + shift).to(dtype)), torch.randn(shape)
    assert_same_results(ours, theirs, x, probe, layout)


@of_any_shape(LAYOUTS)
def test_of_any_shape(sizes, width, activation, affine, dtype, layout):
    assert_as_torchs((*sizes, width), activation, affine, dtype, layout)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_forms_and_dtypes(activation, layout, native):
    with native_loops(native):
        for dtype in TOLERANCES:
            assert_as_torchs((2, 37, 5, 9), activation, True, dtype, layout, shift=1.0)
            assert_as_torchs((2, 24, 5, 13), activation, True, dtype, layout, shift=1.0)
            for sides in ((8, 8), (16, 8)):  # most maps that loops go through side by side
                assert_as_torchs((3, 11, *sides), activation, True, dtype, layout, shift=-1.0)
        assert_as_torchs((1, 33, 3, 5, 4), activation, False, torch.float32, layout)
        assert_as_torchs((2, 3, 70, 91), activation, True, torch.float32, layout)


@pytest.mark.skipif(not cpp.take(torch.ones(1, 1, 2, 2)), reason="no C++ compiler")
@pytest.mark.parametrize("maps", EXACTLY)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_as_exact_as_torch(layout, maps, monkeypatch):
    monkeypatch.setattr(fused, "_quickest", lambda *_: cpp)  # also where torch's own would run
    assert_as_exact(InstanceNormAct2d(3, "identity"), nn.InstanceNorm2d(3), LAYOUTS[layout], maps)


@pytest.mark.skipif(not cpp.take(torch.ones(1, 1, 2, 2)), reason="no C++ compiler")
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_gradients_as_exact_as_torchs(layout):
    ours, theirs = InstanceNormAct2d(32, "identity", affine=True), nn.InstanceNorm2d(32, affine=True)
    assert_gradients_as_exact(ours, theirs, LAYOUTS[layout])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_far_out_values(activation):
    """Where exponentials overflow, and what is not a number."""
    layer = InstanceNormAct2d(1, ACTIVATIONS[activation], affine=True)
    nn.init.constant_(layer.weight, 100.0)
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(
        layer(x), ACTIVATIONS[activation](nn.functional.instance_norm(x) * 100), atol=2e-5, rtol=1e-4
    )
    x[0, 0, 0, 0] = torch.nan
    assert layer(x).isnan().all()


@pytest.mark.parametrize("channels", [3, 16, 24, 32])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_a_map_of_no_numbers_is_alone(channels, dtype):
    x = LAYOUTS["channels last"](torch.randn(1, channels, 4, 4).to(dtype))
    x[0, 2, 1, 1] = torch.nan
    y = InstanceNormAct2d(channels)(x.requires_grad_())
    (to_x,) = torch.autograd.grad(y, x, torch.ones_like(y))
    for maps in (y, to_x):
        assert maps[0, 2].isnan().all()
        assert maps.isnan().sum() == 16


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name != "identity"])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_one_tensor_is_kept(activation, layout):
    assert kept(InstanceNormAct2d(8, activation, affine=True), layout) == 1
    assert kept(nn.Sequential(nn.InstanceNorm2d(8, affine=True), ACTIVATIONS[activation]), layout) >= 2


@pytest.mark.skipif(not cpp.take(torch.ones(1, 1, 2, 2)), reason="no C++ compiler: passes of torch's take memory")
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_less_memory_at_a_time(activation):
    def peak(layers):
        x = torch.randn(1, 4, 32, 32).requires_grad_()
        with Alive() as alive:
            layers(x).mean().backward()
        return alive.peak / (4 * x.numel())

    ours = [InstanceNormAct2d(4, activation) for _ in range(6)]
    theirs = [layer for _ in range(6) for layer in (nn.InstanceNorm2d(4), copy.deepcopy(ACTIVATIONS[activation]))]
    assert peak(nn.Sequential(*ours)) <= 7.5
    assert peak(nn.Sequential(*theirs)) >= 8.9


@pytest.mark.skipif(not cpp.take(torch.ones(1, 1, 2, 2)), reason="no C++ compiler")
def test_profilers_see_one_operation_that_does_what_a_call_does():
    layer, x = InstanceNormAct2d(3), torch.randn(2, 3, 4, 4)
    with torch.profiler.profile() as profiled:
        seen = results(layer, x, torch.ones_like(x))
    names = [event.key for event in profiled.key_averages() if event.key.startswith("lorbms_fast::")]
    assert sorted(names) == ["lorbms_fast::instance_norm_maps", "lorbms_fast::instance_norm_maps_backward"]
    for f, e in zip(results(layer, x, torch.ones_like(x)), seen, strict=True):
        assert torch.equal(f, e)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_maps_and_gradients_that_are_to_be_negated(layout):
    """As parts of conjugate numbers are: their sign is not what lies in memory."""
    layer, x, probe = InstanceNormAct2d(3), LAYOUTS[layout](torch.randn(2, 3, 4, 4)), torch.randn(2, 3, 4, 4)
    negated = [torch._neg_view(-t).detach().requires_grad_() for t in (x, LAYOUTS[layout](probe))]
    expected = torch.autograd.grad(layer(x.requires_grad_()), x, probe)
    found = torch.autograd.grad(layer(negated[0]), negated[0], negated[1].detach())
    torch.testing.assert_close(found, expected)


def test_an_image_that_becomes_lines_behind_the_norm():
    """Where torch 2.13's own misreads the gradient, whose one sample has another stride."""
    x, probe = torch.randn(24, 8, 8, requires_grad=True), torch.randn(8, 8, 24)
    for layer in (InstanceNorm2d(24), InstanceNormAct2d(24)):
        (found,) = torch.autograd.grad(layer(x).permute(1, 2, 0), x, probe)
        (expected,) = torch.autograd.grad(layer(x), x, probe.permute(2, 0, 1).contiguous())
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_parameters_of_other_sizes_are_refused(layout):
    x = LAYOUTS[layout](torch.randn(2, 8, 16, 16, requires_grad=True))
    for size in (2, 9):
        for parameters in ({"weight": torch.ones(size)}, {"bias": torch.ones(size)}):
            with pytest.raises(ValueError, match=r"expected \(8,\)"):
                instance_norm_act(x, **parameters)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_second_derivatives(activation, layout):
    layer = InstanceNormAct2d(2, ACTIVATIONS[activation], affine=True).double()
    x = LAYOUTS[layout](torch.randn(2, 2, 3, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(layer, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, x, fast_mode=True)


def test_empty_and_unbatched():
    for layer, shape in ((InstanceNormAct2d(3, "silu"), (3, 4, 5)), (InstanceNormAct3d(3, "silu"), (3, 2, 4, 5))):
        x = torch.randn(shape)
        torch.testing.assert_close(layer(x), layer(x[None])[0])
        assert layer(x[None][:0]).shape == (0, *shape)
        with pytest.raises(ValueError, match="expected"):
            layer(x[0])
        with pytest.raises(ValueError, match="more than 1 spatial element"):
            layer(x[..., :1, :1][:, :1] if len(shape) == 4 else x[..., :1, :1])


def test_compiled():
    layer = InstanceNormAct2d(3, "leaky_relu", affine=True)
    x = torch.randn(2, 3, 4, 5)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    program = torch.export.export(layer, (x,))
    torch.testing.assert_close(program.module()(x), layer(x))
    with use_impl("reference"):
        torch.testing.assert_close(layer(x), program.module()(x))


def test_a_layer_names_its_activation():
    assert named(nn.LeakyReLU(0.3)) == ("leaky_relu", 0.3)
    assert "activation=leaky_relu, negative_slope=0.2" in repr(InstanceNormAct2d(3, "leaky_relu", negative_slope=0.2))
    assert list(InstanceNormAct2d(3, affine=True).state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize("positions", [4, 64])
@pytest.mark.parametrize("kinds", [("float32", "bfloat16"), ("bfloat16", "float32")])
@pytest.mark.parametrize("layout", ["contiguous", "channels last"])
def test_parameters_of_two_dtypes_are_refused_as_torch_refuses_them(layout, kinds, positions):
    x = LAYOUTS[layout](torch.ones(2, 16, positions, positions, dtype=torch.bfloat16))
    weight, bias = (torch.ones(16, dtype=getattr(torch, kind)) for kind in kinds)
    with pytest.raises(RuntimeError, match="scalar type"):
        nn.functional.instance_norm(x, weight=weight, bias=bias)
    with pytest.raises(RuntimeError, match="scalar type"):
        instance_norm_act(x, weight=weight, bias=bias)


def test_maps_for_which_torchs_own_is_quicker_are_left_to_it_first(monkeypatch):
    """In training alone: else loops are quicker from fewer values on."""
    layer, x, asked = InstanceNorm2d(8, affine=True), torch.randn(2, 8, 16, 16), []
    run = modules.run
    monkeypatch.setattr(modules, "run", lambda *args: asked.append(args[1]) or run(*args))
    layer(x)
    assert asked == []
    layer(LAYOUTS["channels last"](x))
    layer(x[:1])
    layer.requires_grad_(False)(x)
    assert [maps.shape[0] for maps in asked] == [2, 1, 2]
