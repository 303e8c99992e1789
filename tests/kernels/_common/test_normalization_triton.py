"""Instance norm, batch norm of groups, and both with ReLU, in Triton's interpreter."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lorbms_fast import kernels
from lorbms_fast.kernels import InstanceNorm2d, InstanceNorm3d
from lorbms_fast.kernels._common.activation import NAMES, named
from lorbms_fast.kernels._common.normalization.triton import ops as normalization
from lorbms_fast.kernels.grouped_batch_norm import reference as batch_norm
from lorbms_fast.kernels.instance_norm import reference as instance_norm

CHANNELS_LAST, CONTIGUOUS = torch.channels_last, torch.contiguous_format
LAYOUTS = (CONTIGUOUS, CHANNELS_LAST)
SLOPES = {"leaky_relu": 0.2}


@pytest.fixture(params=["whole", "parts"])
def tiling(request, monkeypatch) -> None:
    """Both ways of dividing the work, at sizes the interpreter can do."""
    if request.param == "parts":
        monkeypatch.setattr(normalization, "WHOLE_TILE", {True: 8, False: 8})
        monkeypatch.setattr(normalization, "TILE", 16)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 5, 3), (1, 1, 1, 7)])
def test_instance_norm_relu(agree, tiling, shape, layout):
    x = draw(*shape).contiguous(memory_format=layout)
    assert kernels.instance_norm_relu(x, impl="triton").is_contiguous(memory_format=layout)
    agree(
        lambda x: kernels.instance_norm_relu(x, 1e-3, "triton"), lambda x: instance_norm.instance_norm_relu(x, 1e-3), x
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_instance_norm_in_low_precision(agree, dtype):
    x = draw(2, 3, 4, 4).to(dtype)
    assert kernels.instance_norm(x, impl="triton").dtype == dtype
    agree(
        lambda x: kernels.instance_norm(x, 1e-3, "triton"),
        lambda x: instance_norm.instance_norm(x, 1e-3),
        x,
        tolerance=torch.finfo(dtype).eps,
    )


def test_instance_norm_of_any_strides(agree):
    def strange(x: Tensor) -> Tensor:
        return x.transpose(2, 3)[:, 1:]

    agree(
        lambda x: kernels.instance_norm(strange(x), 1e-3, "triton"),
        lambda x: instance_norm.instance_norm(strange(x), 1e-3),
        draw(2, 3, 2, 4),
    )


def test_gradient_of_any_strides():
    x = draw(1, 2, 2, 3).requires_grad_()
    gradients = [
        torch.autograd.grad(kernels.instance_norm(x, 1e-3, impl).sum(), x)[0] for impl in ("triton", "reference")
    ]
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=0)


def test_statistics_far_from_zero(tiling):
    x = draw(1, 2, 4, 5) + 3000
    found, exact = kernels.instance_norm(x, impl="triton"), instance_norm.instance_norm(x.double())
    assert (found - exact).abs().max() < 2e-3  # rounding of the mean of such numbers, over their deviation


@pytest.mark.parametrize("activation", [name for name in NAMES if name not in ("identity", "relu")])
@pytest.mark.parametrize("affine", [False, True])
def test_activations(agree, tiling, activation, affine):
    x, *parameters = draw(2, 3, 3, 2), *([draw(3, seed=1), draw(3, seed=2)] if affine else [])
    how = named(activation, SLOPES.get(activation))
    agree(
        lambda x, *of: kernels.instance_norm_act(x, activation, SLOPES.get(activation), 1e-3, *of, impl="triton"),
        lambda x, *of: instance_norm.instance_norm(x, 1e-3, *(of or (None, None)), how),
        *(x, *parameters),
    )


def test_no_samples():
    x = torch.ones(0, 2, 3, 3, requires_grad=True)
    y = kernels.instance_norm(x, impl="triton")
    assert y.shape == x.shape
    y.sum().backward()


class Grids:
    """Stands for the kernels' module, and notes how many programs each launch has along each axis."""

    def __init__(self):
        self.launched = []

    def __getattr__(self, name):
        return self

    def __getitem__(self, grid):
        self.launched.append(grid)
        return lambda *args, **kwargs: None


def test_large_maps_have_more_tiles_than_the_later_axes_of_a_grid_have_programs(monkeypatch):
    grids = Grids()
    monkeypatch.setattr(normalization, "kernels", grids)
    monkeypatch.setattr(normalization, "TILE", 32)  # a position a tile: so maps need not be as large
    x = torch.zeros(2, 32, 256, 257).contiguous(memory_format=CHANNELS_LAST)
    _, mean, var = normalization.normalize(x, None, None, 2, 1e-5, False, "identity", 0.0)
    normalization.normalize_backward(x, x, None, None, mean, var, 1e-5, False, "identity", 0.0)
    assert len(grids.launched) == 4
    assert max(grid[0] for grid in grids.launched) == 2 * 256 * 257
    assert max(programs for grid in grids.launched for programs in grid[1:]) <= 65_535


def test_values_too_far_apart_to_be_numbered_are_refused():
    maps = torch.empty(4, 1 << 20, 1 << 10, device="meta")[:, :3]
    assert normalization._Layout.of(4, maps).samples == 1
    with pytest.raises(NotImplementedError, match="share statistics"):
        normalization._Layout.of(1, maps)


def test_a_gradient_that_reaches_too_far_is_laid_together(monkeypatch):
    # Of 24 values, and 44 with those of a larger gradient's between.
    monkeypatch.setattr(normalization, "INDEXABLE", 30)
    x, gamma, beta, larger = draw(2, 3, 2, 2).requires_grad_(), draw(3, seed=1), draw(3, seed=2), draw(2, 8, 2, 2)
    found, expected = (
        torch.autograd.grad(kernels.relu_grouped_batch_norm(x, gamma, beta, 1, impl=impl)[0], x, larger[:, :3])[0]
        for impl in ("triton", "reference")
    )
    torch.testing.assert_close(found, expected)


def test_constant_maps_are_zero(tiling):
    assert kernels.instance_norm(torch.full((1, 2, 3, 3), 0.1), impl="triton").abs().max() == 0


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("groups", [1, 2])
def test_grouped_batch_norm_after_relu(agree, tiling, groups, layout):
    x, gamma, beta = draw(4, 3, 3, 2).contiguous(memory_format=layout), draw(3, seed=1), draw(3, seed=2)

    def definition(x, gamma, beta):
        y, mean, var = batch_norm.grouped_batch_norm(torch.relu(x), gamma, beta, groups)
        return y, mean.detach(), var.detach()

    agree(
        lambda x, gamma, beta: kernels.relu_grouped_batch_norm(x, gamma, beta, groups, impl="triton"),
        definition,
        *(x, gamma, beta),
    )


def test_grouped_batch_norm_of_an_uneven_batch_is_refused():
    with pytest.raises(ValueError, match="batch of 5"):
        kernels.grouped_batch_norm(torch.ones(5, 1, 2, 2), torch.ones(1), torch.zeros(1), 2, impl="triton")


@pytest.mark.parametrize("impl", ["reference", "fused", "triton"])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_modules_are_drop_in_and_keep_the_layout(agree, impl, affine, dimensions):
    kind, torchs = {2: (InstanceNorm2d, torch.nn.InstanceNorm2d), 3: (InstanceNorm3d, torch.nn.InstanceNorm3d)}[
        dimensions
    ]
    ours, theirs = kind(3, affine=affine), torchs(3, affine=affine).double()
    if affine:
        ours.load_state_dict({"weight": draw(3, seed=1), "bias": draw(3, seed=2)})
    theirs.load_state_dict(ours.state_dict())
    ours.impl = impl
    x = draw(2, 3, *(2, 3, 2)[:dimensions])
    x = x.contiguous(memory_format=torch.channels_last if dimensions == 2 else torch.channels_last_3d)
    assert ours(x).stride() == x.stride()
    torch.testing.assert_close(ours(x[0]), ours(x)[0])
    agree(ours, theirs, x)


@pytest.mark.parametrize("impl", ["fused", "triton"])
def test_module_parameters_get_gradients(impl):
    ours, theirs = InstanceNorm2d(3, affine=True), torch.nn.InstanceNorm2d(3, affine=True)
    ours.impl = impl
    x, probe = draw(2, 3, 3, 4), draw(2, 3, 3, 4, seed=1)
    for layer in (ours, theirs):
        (layer(x) * probe).sum().backward()
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5)


def test_modules_with_running_statistics_are_torchs():
    ours, theirs = InstanceNorm2d(2, track_running_stats=True), torch.nn.InstanceNorm2d(2, track_running_stats=True)
    x = draw(2, 2, 3, 3)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_mean, theirs.running_mean)


@pytest.mark.parametrize("impl", ["fused", "triton"])
def test_modules_refuse_what_torchs_refuse(impl):
    layer = InstanceNorm2d(3, affine=True)
    layer.impl = impl
    with pytest.raises(ValueError, match="expected 3D or 4D input"):
        layer(torch.ones(2, 3))
    with pytest.raises(ValueError, match="to match num_features"):
        layer(torch.ones(2, 4, 2, 2))


@pytest.mark.parametrize("affine", [False, True])
def test_opcheck(affine):
    x = draw(2, 3, 2, 2).requires_grad_()
    parameters = (draw(3).requires_grad_(), draw(3).requires_grad_()) if affine else (None, None)
    torch.library.opcheck(normalization.normalize, (x, *parameters, 2, 1e-5, False, "leaky_relu", 0.2))


def test_compiles_without_a_break():
    def function(x):
        return F.relu(kernels.instance_norm(x, 1e-3, "triton")).square().sum()

    x = draw(1, 2, 3, 3).requires_grad_()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), function(x))
    gradients = [torch.autograd.grad(f(x), x)[0] for f in (compiled, function)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("affine", [False, True])
def test_second_derivatives_are_the_definitions(affine):
    layer, x = InstanceNorm2d(3, affine=affine), draw(2, 3, 2, 4)
    found = {}
    for impl in ("triton", "reference"):
        layer.impl = impl
        z = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(layer(z).pow(3).sum(), z, create_graph=True)
        found[impl] = torch.autograd.grad(slope.square().sum(), [z, *layer.parameters()], allow_unused=True)[:1]
    torch.testing.assert_close(found["triton"], found["reference"], rtol=1e-3, atol=1e-3)
