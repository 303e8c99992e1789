"""The triangular form of the dense block against its definition."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorbms_fast.kernels import (
    DenseBlock,
    dense_block,
    dense_block_activated,
    dense_block_maps,
    pack_layers,
)
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels.dense_block import fused
from lorbms_fast.kernels.dense_block.system import System
from lorbms_fast.kernels.lorbms import dense_block_pooled, pooled_conv2d

ACTIVATIONS = ("relu", "instance_norm_relu")
FORMS = (dense_block, dense_block_maps, dense_block_activated)


def inputs(n, channels, layers, growth, height, width, k, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=dtype)
    x = draw(n, channels, height, width).requires_grad_()
    weights = [draw(growth, channels + i * growth, k, k).requires_grad_() for i in range(layers)]
    biases = [draw(growth).requires_grad_() for _ in range(layers)]
    return x, weights, biases


def results(form, x, weights, biases, activation, impl, wanted) -> list[Tensor]:
    """The output, and the gradients of its product with a fixed random tensor for what is wanted."""
    y = form(x, weights, biases, activation, impl=impl)
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return [y, *torch.autograd.grad((y * probe).sum(), wanted)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    scale = max(1.0, *(e.abs().max().item() for e in expected))
    for f, e in zip(found, expected, strict=True):
        assert f.shape == e.shape
        assert (f - e).abs().max().item() <= tolerance * scale


@settings(deadline=None, max_examples=40)
@given(
    form=st.sampled_from(FORMS),
    activation=st.sampled_from(ACTIVATIONS),
    n=st.integers(1, 3),
    channels=st.integers(1, 6),
    layers=st.integers(1, 7),
    growth=st.integers(1, 5),
    height=st.integers(1, 7),
    width=st.integers(2, 7),
    k=st.sampled_from((1, 3)),
    layout=st.sampled_from(("contiguous", "channels_last", "transposed")),
    native=st.booleans(),
)
def test_output_and_gradients(form, activation, n, channels, layers, growth, height, width, k, layout, native):
    x, weights, biases = inputs(n, channels, layers, growth, height, width, k)
    arranged = {
        "contiguous": x,
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
    }[layout]
    wanted = [x, *weights, *biases]
    expected = results(form, arranged, weights, biases, activation, "reference", wanted)
    with native_loops(native):
        found = results(form, arranged, weights, biases, activation, "fused", wanted)
    # Instance norm of few, nearly equal values divides by almost nothing: rounding is amplified in both.
    assert_close(found, expected, 1e-7 if activation == "instance_norm_relu" else 1e-12)


@settings(deadline=None, max_examples=20)
@given(
    activation=st.sampled_from(ACTIVATIONS),
    n=st.integers(1, 3),
    channels=st.integers(1, 6),
    layers=st.integers(1, 5),
    growth=st.integers(1, 4),
    height=st.integers(2, 7),
    width=st.integers(2, 7),
    channels_last=st.booleans(),
    moved=st.sets(st.sampled_from(("x", "layers", "down")), min_size=1),
)
def test_block_and_transition_together(activation, n, channels, layers, growth, height, width, channels_last, moved):
    x, weights, biases = inputs(n, channels, layers, growth, height, width, 3)
    weight, bias = torch.randn(3, channels + layers * growth, 1, 1, dtype=x.dtype), torch.randn(3, dtype=x.dtype)
    groups = {"x": [x], "layers": [*weights, *biases], "down": [weight, bias]}
    for name, tensors in groups.items():
        for tensor in tensors:
            tensor.requires_grad_(name in moved)
    arranged = x.contiguous(memory_format=torch.channels_last) if channels_last else x

    def expected_form(x, weights, biases, activation, impl):
        return pooled_conv2d(dense_block_activated(x, weights, biases, activation, impl=impl), weight, bias, impl)

    def found_form(x, weights, biases, activation, impl):
        return dense_block_pooled(x, *pack_layers([(weights, biases)], impl=impl), weight, bias, activation)

    wanted = [tensor for name in sorted(moved) for tensor in groups[name]]
    expected = results(expected_form, arranged, weights, biases, activation, "reference", wanted)
    for impl in ("fused", "reference"):
        found = results(found_form, arranged, weights, biases, activation, impl, wanted)
        assert_close(found, expected, 1e-7 if activation == "instance_norm_relu" else 1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form, activation):
    x, weights, biases = inputs(2, 2, 3, 2, 4, 3, 3)

    def run(x, *parameters):
        return form(x, parameters[:3], parameters[3:], activation, impl="fused")

    assert torch.autograd.gradcheck(run, (x, *weights, *biases))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("moved", ["x", "weights", "biases"])
def test_only_what_is_asked_for_gets_gradients(activation, moved):
    x, weights, biases = inputs(2, 3, 4, 2, 4, 4, 3)
    groups = {"x": [x], "weights": weights, "biases": biases}
    expected = results(dense_block, x, weights, biases, activation, "reference", groups[moved])
    for name, tensors in groups.items():
        for tensor in tensors:
            tensor.requires_grad_(name == moved)
    assert_close(results(dense_block, x, weights, biases, activation, "fused", groups[moved]), expected, 1e-9)


def test_bfloat16_under_autocast_is_as_near_as_bfloat16_can_be():
    x, weights, biases = inputs(2, 8, 4, 4, 8, 8, 3, dtype=torch.float32)
    expected = dense_block(x, weights, biases, "instance_norm_relu", impl="reference")
    with torch.autocast("cpu", torch.bfloat16):
        found = dense_block(x, weights, biases, "instance_norm_relu", impl="fused")
        plain = dense_block(x, weights, biases, "instance_norm_relu", impl="reference")
    error, plain_error = ((y.float() - expected).norm() / expected.norm() for y in (found, plain))
    assert error < max(0.02, 3 * plain_error)


def test_module_in_a_strangers_model():
    torch.manual_seed(0)
    block = DenseBlock(5, num_layers=3, growth_rate=4)
    assert set(block.state_dict()) == {f"layer{i}.{name}" for i in range(3) for name in ("weight", "bias")}
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 1), block, torch.nn.Conv2d(17, 1, 1))
    loss = model(torch.randn(2, 3, 9, 6)).square().mean()
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_sizes_that_cannot_be_are_refused():
    for sizes in {"num_layers": -1}, {"num_layers": 2, "growth_rate": 0}:
        with pytest.raises(ValueError, match="growth_rate"):
            DenseBlock(3, **sizes)
    with pytest.raises(ValueError, match="kernel_size 2"):
        DenseBlock(3, 2, kernel_size=2)
    for channels, layout in ((48, torch.channels_last), (16, torch.contiguous_format)):
        with pytest.raises(ValueError, match=rf"{channels}, 32, 32\): expected \(N, 32, H, W\)"):
            DenseBlock(32, num_layers=3, growth_rate=16)(torch.randn(2, channels, 32, 32).to(memory_format=layout))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        ((16, 31, 3, 3), 16), ((16, 48, 3, 3), 16), ((15, 32, 3, 3), 15), ((1, 32, 3, 3), 1), ((16, 32, 1, 1), 16),
        ((16, 32, 3, 1), 16), ((16, 32, 3, 3), 17),
    ],
)  # fmt: skip
def test_layers_that_are_not_of_one_block_are_refused(weight, bias, layout):
    weights = [torch.zeros(shape).to(memory_format=layout) for shape in ((16, 16, 3, 3), weight)]
    with pytest.raises(ValueError, match="layer 1"):
        dense_block_maps(torch.zeros(1, 16, 8, 8), weights, [torch.zeros(16), torch.zeros(bias)], impl="fused")


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("form", FORMS)
def test_second_derivatives_are_the_definitions(form, activation):
    x, weights, biases = inputs(2, 2, 2, 2, 3, 3, 3)
    found = {}
    for impl in ("fused", "reference"):
        y = form(x, weights, biases, activation, 1e-2, impl)
        (gradient,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        found[impl] = torch.autograd.grad(gradient.square().sum(), [x, *weights])
    assert_close(found["fused"], found["reference"], 1e-9)


def test_old_names_of_keywords_are_understood():
    with pytest.warns(DeprecationWarning, match="layers is now called num_layers"):
        assert len([*DenseBlock(3, layers=2).children()]) == 2
    with pytest.warns(DeprecationWarning, match="growth is now called growth_rate"):
        assert DenseBlock(3, 1, growth=4).layer0.weight.shape[0] == 4
    with pytest.raises(TypeError, match="given twice"):
        DenseBlock(3, 2, layers=2)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_blocks_are_kernels_that_a_convolution_reads_without_copying_them(layers):
    _, weights, _ = inputs(1, 3, layers, 2, 4, 4, 3)
    blocks = fused.pack(weights, torch.float64)
    assert len(blocks) == layers
    assert all(block.is_contiguous(memory_format=torch.channels_last) for block in blocks)
    assert sum(block.numel() for block in blocks) == sum(weight.numel() for weight in weights)
    for again, weight in zip(System(blocks).weights(), weights, strict=True):
        torch.testing.assert_close(again, weight, rtol=0, atol=0)
    (to_first,) = torch.autograd.grad(sum(block.square().sum() for block in blocks), weights[:1])
    torch.testing.assert_close(to_first, 2 * weights[0])
