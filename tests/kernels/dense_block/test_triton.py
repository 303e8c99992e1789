"""The dense block's kernels, forward and backward, against the definition in float64."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorbms_fast.kernels import DenseBlock, dense_block, dense_block_activated, dense_block_maps
from lorbms_fast.kernels._common.operation import failed_kernel
from lorbms_fast.kernels.dense_block.triton import ops as form
from lorbms_fast.kernels.dense_block.triton import sizes

ACTIVATIONS = ("relu", "instance_norm_relu")
FORMS = (dense_block, dense_block_maps, dense_block_activated)
EPS = 1e-3
tiny = settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def inputs(n, channels, layers, growth, height, width, k=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator)
    weights = [draw(growth, channels + i * growth, k, k) / (channels + i * growth) ** 0.5 for i in range(layers)]
    tensors = [draw(n, channels, height, width), *weights, *(draw(growth) for _ in range(layers))]
    return [tensor.to(dtype).requires_grad_() for tensor in tensors]


def results(block, tensors, activation, impl, wanted=None) -> list[Tensor]:
    """The output, and the gradients of its product with a fixed random tensor."""
    x, *parameters = tensors
    layers = len(parameters) // 2
    y = block(x, parameters[:layers], parameters[layers:], activation, EPS, impl)
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y, *torch.autograd.grad((y * probe).sum(), wanted or tensors)]


def nearest_to_bend(tensors, activation) -> float:
    """How near to 0 a map comes in front of a ReLU, where rounding decides about the gradient."""
    x, *parameters = exact(tensors)
    layers = len(parameters) // 2
    maps = dense_block_maps(x, parameters[:layers], parameters[layers:], activation, EPS, "reference")
    if activation != "relu":
        maps = F.instance_norm(maps, eps=EPS)
    return maps.abs().min().item()


def exact(tensors) -> list[Tensor]:
    return [tensor.detach().double().requires_grad_(tensor.requires_grad) for tensor in tensors]


def assert_within(found, expected, allowed) -> None:
    for f, e, most in zip(found, expected, allowed, strict=True):
        assert f.shape == e.shape
        assert f.isfinite().all()
        assert (f.double() - e).norm() <= most


def assert_close(found, expected, tolerance) -> None:
    # Biases under a norm have gradients that are 0 but for rounding.
    assert_within(found, expected, [tolerance * max(1.0, e.norm()) for e in expected])


def assert_agrees(block, tensors, activation, tolerance=2e-5) -> None:
    """Near the definition in float64; or as near as torch's forms in float32, where variances are next to nothing."""
    expected = results(block, exact(tensors), activation, "reference")
    # Of two, as the rounding of one alone may happen to cancel.
    plain = [results(block, tensors, activation, impl) for impl in ("reference", "fused")]
    y, dx, *of_parameters = [e.norm() for e in expected]
    of_weights, of_biases = of_parameters[: len(of_parameters) // 2], of_parameters[len(of_parameters) // 2 :]
    # Those of biases under a norm are 0 but for rounding of sums as large as those for the weights.
    sizes = [y, dx, *of_weights, *map(max, of_weights, of_biases)]
    allowed = [
        max(tolerance * max(1.0, size), *(10 * (p.double() - e).norm() for p in of_torch))
        for *of_torch, e, size in zip(*plain, expected, sizes, strict=True)
    ]
    assert_within(results(block, tensors, activation, "triton"), expected, allowed)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("block", FORMS)
@tiny
@given(
    n=st.integers(1, 3),
    channels=st.integers(1, 19),
    layers=st.integers(1, 4),
    growth=st.integers(1, 18),
    height=st.integers(1, 6),
    width=st.integers(2, 6),
    k=st.sampled_from((1, 3)),
)
@example(n=1, channels=17, layers=3, growth=5, height=5, width=3, k=3)
@example(n=1, channels=1, layers=3, growth=4, height=2, width=2, k=1)  # these: variances of next to nothing
@example(n=2, channels=3, layers=4, growth=16, height=1, width=2, k=1)
@example(n=1, channels=6, layers=4, growth=17, height=1, width=2, k=3)
@example(n=1, channels=16, layers=3, growth=16, height=5, width=3, k=3)  # channels by sixteens
def test_output_and_gradients(block, activation, n, channels, layers, growth, height, width, k):
    tensors = inputs(n, channels, layers, growth, height, width, k)
    assume(nearest_to_bend(tensors, activation) > 1e-5)
    assert_agrees(block, tensors, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("few", [False, True])
def test_images_of_several_tiles(activation, few, monkeypatch):
    """An image in tiles of which the last is not full: one after the other, and in programs and launches apart."""
    monkeypatch.setattr(sizes, "TILE", 16)
    monkeypatch.setattr(sizes, "ON_ONE_SM", 8 if few else 1024)
    assert sizes.is_split(2, 35) == few
    assert_agrees(dense_block_activated, inputs(2, 4, 3, 3, 5, 7), activation)
    assert_agrees(dense_block, inputs(2, 4, 3, 3, 5, 7), activation)


def test_exact_float32_takes_smaller_blocks():
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert_agrees(dense_block_activated, inputs(2, 4, 3, 3, 5, 7), "instance_norm_relu")


def test_a_wide_kernel():
    assert_agrees(dense_block, inputs(1, 2, 2, 3, 6, 4, k=5), "instance_norm_relu")


def assert_as_near_as_torch(found, plain, expected) -> None:
    for f, p, e in zip(found, plain, expected, strict=True):
        assert (f.double() - e).norm() <= 1.5 * (p.double() - e).norm() + 1e-3 * e.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_half_precision_is_as_near_as_torchs(activation, dtype):
    tensors = inputs(2, 8, 3, 4, 6, 6, dtype=dtype)
    found, plain = (results(dense_block, tensors, activation, impl) for impl in ("triton", "fused"))
    assert {tensor.dtype for tensor in found} == {dtype}
    assert_as_near_as_torch(found, plain, results(dense_block, exact(tensors), activation, "reference"))


def test_autocast_leaves_parameters_as_they_are():
    tensors = inputs(2, 8, 3, 4, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found, plain = (results(dense_block_maps, tensors, "instance_norm_relu", impl) for impl in ("triton", "fused"))
    assert [tensor.dtype for tensor in found] == [torch.bfloat16, *(tensor.dtype for tensor in tensors)]
    expected = results(dense_block_maps, exact(tensors), "instance_norm_relu", "reference")
    assert_as_near_as_torch(found, plain, expected)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: x[:, :1].expand_as(x),
    ],
    ids=["channels_last", "transposed", "expanded"],
)
def test_any_layout(arrange):
    x, *parameters = inputs(2, 5, 2, 3, 4, 6)
    expected = results(dense_block, exact([arrange(x), *parameters]), "instance_norm_relu", "reference")
    found = results(dense_block, [arrange(x.detach()).requires_grad_(), *parameters], "instance_norm_relu", "triton")
    assert_close(found, expected, 2e-5)


@pytest.mark.parametrize("mixed", [False, True])
def test_weights_in_channels_last(mixed):
    x, *parameters = inputs(2, 5, 3, 3, 4, 4)
    tensors = [x, *parameters]
    for i in (1, 3) if mixed else (1, 2, 3):
        tensors[i] = tensors[i].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    found = results(dense_block, tensors, "instance_norm_relu", "triton")
    assert_close(found, results(dense_block, exact(tensors), "instance_norm_relu", "reference"), 2e-5)
    if not mixed:
        assert all(found[1 + i].stride() == tensors[i].stride() for i in (1, 2, 3))


def test_maps_far_from_zero_keep_their_variance():
    tensors = inputs(2, 3, 2, 4, 6, 6)
    with torch.no_grad():
        tensors[0] += 1000
    assert_agrees(dense_block_activated, tensors, "instance_norm_relu", 1e-3)


@pytest.mark.parametrize("few", [False, True])
def test_what_is_not_a_number_stays(few, monkeypatch):
    """In one image, and in gradients of what read it; products with it may make more of it than the definition's."""
    monkeypatch.setattr(sizes, "ON_ONE_SM", 8 if few else 1024)
    tensors = inputs(2, 3, 2, 4, 4, 4)
    with torch.no_grad():
        tensors[0][1, 2, 0, 3] = torch.nan
    found, expected = (results(dense_block, tensors, "instance_norm_relu", impl) for impl in ("triton", "reference"))
    assert found[0].isnan().flatten(1).any(1).tolist() == [False, True]
    for f, e in zip(found, expected, strict=True):
        assert f[e.isnan()].isnan().all()


@pytest.mark.parametrize("moved", ["x", "weights", "biases"])
def test_only_what_is_asked_for_gets_gradients(moved, monkeypatch):
    tensors = inputs(2, 3, 2, 2, 4, 4)
    groups = {"x": slice(0, 1), "weights": slice(1, 3), "biases": slice(3, 5)}
    for name, group in groups.items():
        for tensor in tensors[group]:
            tensor.requires_grad_(name == moved)
    programs = programs_of_gradients(monkeypatch)
    found = results(dense_block, tensors, "relu", "triton", tensors[groups[moved]])
    doubles = exact(tensors)
    assert_close(found, results(dense_block, doubles, "relu", "reference", doubles[groups[moved]]), 2e-5)
    # 32 positions in two blocks; nine taps of 16 channels in three, and the biases.
    assert programs == [2 if moved == "x" else 4]


def programs_of_gradients(monkeypatch) -> list:
    kernel, counts = form.kernels.gradients, []

    class Counted:
        def __getitem__(self, grid):
            counts.append(*grid)
            return kernel[grid]

    monkeypatch.setattr(form.kernels, "gradients", Counted())
    monkeypatch.setattr(sizes, "POSITIONS", 16)
    return counts


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("block", FORMS)
def test_a_gradient_penalty(block, activation):
    """Whose gradients are those of the definition, which runs only then."""
    tensors = inputs(2, 3, 3, 2, 4, 3)

    def penalty(tensors, impl):
        x, *parameters = tensors
        y = block(x, parameters[:3], parameters[3:], activation, EPS, impl)
        (slope,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        return [slope, *torch.autograd.grad((slope.flatten(1).norm(dim=1) - 1).square().sum(), tensors)]

    assert_close(penalty(tensors, "triton"), penalty(exact(tensors), "reference"), 1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_opcheck(activation):
    x, *parameters = inputs(2, 3, 2, 4, 4, 3)
    packed = (
        form.pack([parameters[:2]], torch.float32)[0].detach().requires_grad_(),
        torch.cat(parameters[2:]).detach().requires_grad_(),
    )
    torch.library.opcheck(form.dense_block, (x, *packed, 2, 3, activation, EPS))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_no_graph_break_under_compile(backend):
    block = DenseBlock(3, 2, 4, activation="instance_norm_relu", impl="triton")
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def step(x):
        return torch.sigmoid(block(torch.tanh(x))).square().mean()

    expected = torch.autograd.grad(step(x), [x, *block.parameters()])
    found = torch.autograd.grad(torch.compile(step, backend=backend, fullgraph=True)(x), [x, *block.parameters()])
    assert_close(found, [e.double() for e in expected], 1e-6)


def test_export_keeps_the_operator():
    block = DenseBlock(3, 2, 4, impl="triton").eval()
    x = torch.ones(1, 3, 4, 4)
    program = torch.export.export(block, (x,), strict=False)
    assert "lorbms_fast.dense_block" in program.graph_module.code
    torch.testing.assert_close(program.module()(x), block(x))


def test_layers_of_more_maps_than_a_program_makes_are_left_to_the_fused_form():
    """By the dispatcher, which knows that it was a kernel that could not."""
    x, *parameters = inputs(1, 4, 2, sizes.WIDEST + 1, 2, 2, k=1)
    with pytest.raises(NotImplementedError, match="for 256 at most") as error:
        dense_block(x, parameters[:2], parameters[2:], impl="triton")
    assert failed_kernel(error.value) == form.__name__
