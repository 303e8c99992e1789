"""The layers in what others do with torch's: in-place operations, double backward, compiling, tracing, torch.func."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from lorbms_fast import kernels
from lorbms_fast.cpp import native_loops
from lorbms_fast.kernels import (
    BatchNormAct2d,
    CoordConv2d,
    DenseBlock,
    DenseNetBlock,
    GroupedBatchNorm2d,
    InstanceNorm2d,
    InstanceNorm3d,
    InstanceNormAct,
    InstanceNormAct2d,
    InstanceNormReLU,
    MaxPool2x2,
    ResizeConv2d,
    SpectralConv2d,
    UpsampleConv2d,
    WinogradConv2d,
    WinogradConv3d,
    dense_block_activated,
    grouped_batch_norm,
    instance_norm_act,
    max_pool2x2,
)


def activated_block(activation):
    block = DenseBlock(3, 2, 2, activation=activation).double()
    weights, biases = block.layers()
    return lambda x: dense_block_activated(x, weights, biases, activation)


LAYERS = {
    "BatchNormAct2d": lambda: BatchNormAct2d(3, "leaky_relu", track_running_stats=False),
    "InstanceNorm2d": lambda: InstanceNorm2d(3),
    "InstanceNorm2d affine": lambda: InstanceNorm2d(3, affine=True),
    "InstanceNorm2d tracking": lambda: InstanceNorm2d(3, track_running_stats=True),
    "InstanceNorm3d": lambda: InstanceNorm3d(3),
    "InstanceNorm3d affine": lambda: InstanceNorm3d(3, affine=True),
    "InstanceNormAct2d affine": lambda: InstanceNormAct2d(3, "leaky_relu", negative_slope=0.2, affine=True),
    "InstanceNormAct2d tracking": lambda: InstanceNormAct2d(3, "silu", track_running_stats=True),
    "InstanceNormAct": lambda: InstanceNormAct(3, "gelu"),
    "InstanceNormReLU": lambda: InstanceNormReLU(),
    "DenseBlock": lambda: DenseBlock(3, 2, 2),
    "DenseBlock with norm": lambda: DenseBlock(3, 2, 2, activation="instance_norm_relu"),
    "dense_block_activated": lambda: activated_block("relu"),
    "dense_block_activated with norm": lambda: activated_block("instance_norm_relu"),
    "ResizeConv2d": lambda: ResizeConv2d(3, 2),
    "UpsampleConv2d": lambda: UpsampleConv2d(3, 2),
    "WinogradConv2d": lambda: WinogradConv2d(3, 2, 3, padding=1),
    "WinogradConv3d": lambda: WinogradConv3d(3, 2, 3, padding=1),
    "CoordConv2d": lambda: CoordConv2d(3, 2),
    "MaxPool2x2": lambda: MaxPool2x2(),
    "SpectralConv2d": lambda: SpectralConv2d(3, 2, 3),
    "GroupedBatchNorm2d": lambda: GroupedBatchNorm2d(3).eval(),
    "max_pool2x2": lambda: max_pool2x2,
    "grouped_batch_norm": lambda: lambda x: grouped_batch_norm(x, x.new_ones(3), x.new_zeros(3), 2)[0],
}
layers = pytest.mark.parametrize("name", LAYERS)
layouts = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])


def made(name, channels_last, dtype=torch.float64):
    """A layer and an input for it."""
    torch.manual_seed(0)
    layer, volumes = LAYERS[name](), name.startswith(("InstanceNorm3d", "WinogradConv3d"))
    x = torch.randn(2, 3, 4, 6, 4, dtype=dtype) if volumes else torch.randn(2, 3, 6, 4, dtype=dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d if volumes else torch.channels_last)
    return layer.to(dtype) if isinstance(layer, nn.Module) else layer, x


def gradients(layer, x, change=lambda y: y * y):
    """Of a function behind the layer, for its input and its parameters."""
    x = x.detach().requires_grad_()
    wanted = [x, *(layer.parameters() if isinstance(layer, nn.Module) else ())]
    return torch.autograd.grad(change(layer(x)).sum(), wanted)


def assert_close(found, expected, tolerance=1e-9):
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=tolerance, atol=tolerance)


@layers
@layouts
@pytest.mark.parametrize(
    ("in_place", "plain"),
    [
        (lambda y: y.mul_(2), lambda y: y * 2),
        (nn.ReLU(inplace=True), torch.relu),
        (nn.SiLU(inplace=True), F.silu),
        (lambda y: y.add_(y.detach().clone()), lambda y: y + y.detach()),
    ],
    ids=["mul_", "ReLU", "SiLU", "add_"],
)
def test_operations_in_place_behind_a_layer_train(name, channels_last, in_place, plain):
    layer, x = made(name, channels_last)
    assert_close(gradients(layer, x, lambda y: in_place(y).sin()), gradients(layer, x, lambda y: plain(y).sin()))


@layers
@layouts
def test_operations_in_place_train_without_a_compiler_too(name, channels_last):
    layer, x = made(name, channels_last)
    with native_loops(False):
        found = gradients(layer, x, lambda y: y.mul_(2).sin())
    assert_close(found, gradients(layer, x, lambda y: (y * 2).sin()))


CHANGED_SINCE = {
    "BatchNormAct2d": lambda: BatchNormAct2d(32, "leaky_relu", track_running_stats=False),
    "BatchNormAct2d tracking": lambda: BatchNormAct2d(32, "leaky_relu"),
    "InstanceNormAct2d": lambda: InstanceNormAct2d(32, affine=True),
    "WinogradConv2d": lambda: WinogradConv2d(32, 32, 3, padding=1, bias=False),
    "DenseBlock": lambda: DenseBlock(32, 2, activation="instance_norm_relu"),
    "DenseNetBlock": lambda: DenseNetBlock(2, 32, 2, 16),
}


@pytest.mark.parametrize("name", CHANGED_SINCE)
@layouts
def test_what_is_changed_in_place_since_where_torch_copies_it_before(name, channels_last):
    layer, x = CHANGED_SINCE[name](), torch.randn(4, 32, 32, 32)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    expected = gradients(layer, x)

    def changed_since(x):
        maps = x * 1
        y = layer(maps)
        maps.mul_(2)
        return y

    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        found = gradients(changed_since, x)
    assert_close(found, expected[:1], 1e-5)


class _Elsewhere(TorchFunctionMode):
    """What `torch.set_default_device` would have made on another device, where loops of the CPU would reach for it."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        makers = {torch.empty, torch.zeros, torch.ones, torch.full, torch.tensor, torch.arange, torch.linspace}
        if function in makers and "device" not in (kwargs or {}):
            self.made.append((function.__name__, args))
        return function(*args, **(kwargs or {}))


@layers
@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_is_made_on_the_default_device(name, channels_last, dtype):
    layer, x = made(name, channels_last, dtype)
    with _Elsewhere() as elsewhere:
        gradients(layer, x)
    assert elsewhere.made == []


@layers
@layouts
def test_a_gradient_penalty(name, channels_last):
    """As of WGAN-GP and R1: its gradients are those of the definition."""
    layer, x = made(name, channels_last)

    def penalty(impl):
        with kernels.use_impl(impl):
            z = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(layer(z).pow(3).sum(), z, create_graph=True)
            wanted = [z, *(layer.parameters() if isinstance(layer, nn.Module) else ())]
            return [
                slope,
                *torch.autograd.grad((slope.flatten(1).norm(dim=1) - 1).square().sum(), wanted, allow_unused=True),
            ]

    for f, e in zip(penalty("auto"), penalty("reference"), strict=True):
        assert (f is None) == (e is None)
        if f is not None:
            torch.testing.assert_close(f, e, rtol=1e-8, atol=1e-8)


@layers
@layouts
@pytest.mark.parametrize("again", [False, True])
def test_many_gradients_at_once(name, channels_last, again):
    """As a vectorized Jacobian takes them."""
    if name == "InstanceNormAct2d tracking":
        pytest.skip("torch itself cannot: aten::silu_backward does not support it")
    layer, x = made(name, channels_last)
    x = x.requires_grad_()
    y = layer(x)
    probes = [torch.randn_like(y), torch.randn_like(y)]
    expected = [torch.autograd.grad(y, x, probe, retain_graph=True)[0] for probe in probes]
    found = torch.autograd.grad(y, x, torch.stack(probes), is_grads_batched=True, create_graph=again)
    assert_close(found[0], expected)


@layers
@layouts
def test_a_dual_gradient(name, channels_last):
    """Forward-mode differentiation of the backward alone, which is linear in what comes in."""
    if name == "InstanceNormAct2d tracking":
        pytest.skip("torch itself cannot: aten::silu_backward does not support it")
    layer, x = made(name, channels_last)
    x = x.requires_grad_()
    y = layer(x)
    probe = torch.randn_like(y)
    (expected,) = torch.autograd.grad(y, x, probe, retain_graph=True)
    with forward_ad.dual_level():
        (found,) = torch.autograd.grad(y, x, forward_ad.make_dual(torch.ones_like(y), probe))
        tangent = forward_ad.unpack_dual(found).tangent
    assert tangent is not None
    assert_close([tangent], [expected])


@layers
@layouts
def test_a_gradient_of_zeros_without_memory(name, channels_last):
    layer, x = made(name, channels_last)
    y = layer(x.requires_grad_())
    (found,) = torch.autograd.grad(y, x, torch._efficientzerotensor(y.shape, dtype=y.dtype))
    assert not found.any()


@layers
@layouts
def test_compiled_in_one_graph_with_gradients(name, channels_last):
    layer, x = made(name, channels_last)
    expected = gradients(layer, x)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    z = x.detach().requires_grad_()
    y = compiled(z)
    if "tracking" not in name:
        assert y.stride() == layer(x).stride()
    wanted = [z, *(layer.parameters() if isinstance(layer, nn.Module) else ())]
    assert_close(torch.autograd.grad((y * y).sum(), wanted), expected)


def test_a_block_recorded_by_make_fx():
    """Which sees torch's operations alone, and nothing of what loops write."""
    torch.manual_seed(0)
    layer, x = DenseNetBlock(2, 16, 4, 16).eval(), torch.randn(2, 16, 8, 8)
    assert_close([make_fx(layer)(x)(2 * x)], [layer(2 * x)], 1e-4)


def test_exported_with_any_batch():
    layer, x = made("ResizeConv2d", channels_last=False)
    program = torch.export.export(layer, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    assert_close([program.module()(x.repeat(2, 1, 1, 1))], [layer(x.repeat(2, 1, 1, 1))])


@pytest.mark.parametrize("name", ["DenseBlock", "InstanceNormReLU"])
def test_compiled_with_dynamic_shapes_and_exported(name):
    layer, x = made(name, channels_last=False)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    assert_close([compiled(x)], [layer(x)])
    assert_close([torch.export.export(layer, (x,)).module()(2 * x)], [layer(2 * x)])


@layers
@layouts
def test_transforms_of_torch_func(name, channels_last):
    layer, x = made(name, channels_last)
    if "tracking" in name:
        layer.eval()

    def loss(x):
        return layer(x).pow(3).sum()

    z = x.detach().requires_grad_()
    (expected,) = torch.autograd.grad(loss(z), z)
    torch.testing.assert_close(torch.func.grad(loss)(x), expected, rtol=1e-9, atol=1e-9)
    _, along = torch.func.jvp(loss, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(along, expected.sum(), rtol=1e-9, atol=1e-9)
    batch = torch.stack([x, 2 * x])
    torch.testing.assert_close(torch.func.vmap(layer)(batch)[1], layer(2 * x), rtol=1e-9, atol=1e-9)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        assert torch.autograd.forward_ad.unpack_dual(layer(dual)).tangent is not None


@layers
@layouts
def test_maps_that_a_transform_left_behind(name, channels_last):
    """Which are no memory that loops could read."""
    layer, x = made(name, channels_last)
    x, left = x.requires_grad_(), []
    torch.func.grad(lambda x: left.append(x * 1) or x.sum())(x)
    with torch.no_grad():
        assert_close([layer(left[0])], [layer(x)])
    found, expected = (torch.autograd.grad(layer(maps).pow(3).sum(), x) for maps in (left[0], x))
    assert_close(found, expected)


@pytest.mark.parametrize("name", [name for name in LAYERS if name[0].isupper()])
@layouts
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_tracing(name, channels_last):
    layer, x = made(name, channels_last)
    model = nn.Sequential(nn.Identity(), layer)
    recorded = torch.fx.symbolic_trace(model)
    assert [node.target for node in recorded.graph.nodes if node.op == "call_module"] == ["0", "1"]
    torch.testing.assert_close(recorded(x), layer(x))
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, x), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(2 * x), layer(2 * x), rtol=1e-9, atol=1e-9)
    assert copy.deepcopy(layer).to("meta")(x.to("meta")).shape == layer(x).shape


@layers
def test_a_checkpoint_unpacks_what_is_kept_once(name):
    layer, x = made(name, channels_last=True)

    def checkpointed(x):
        return checkpoint(layer, x, use_reentrant=False)

    assert_close(gradients(checkpointed, x), gradients(layer, x)[:1])


OF_IMAGES = ("InstanceNorm2d affine", "InstanceNormAct2d affine", "DenseBlock", "DenseBlock with norm", "ResizeConv2d",
             "CoordConv2d", "MaxPool2x2", "SpectralConv2d", "WinogradConv2d")  # fmt: skip


@pytest.mark.parametrize("name", OF_IMAGES)
@layouts
def test_one_image_without_a_batch_is_one_of_a_batch(name, channels_last):
    layer, x = made(name, channels_last)
    torch.testing.assert_close(layer(input=x[0]), layer(input=x)[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in LAYERS if name[0].isupper() and "affine" not in name])
@layouts
def test_a_batch_of_none(name, channels_last):
    layer, x = made(name, channels_last)
    x = x[:0].requires_grad_()
    y = layer(input=x)
    y.sum().backward()
    assert y.shape == (0, *layer(input=x.new_ones(1, *x.shape[1:])).shape[1:])
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("layer", [DenseBlock(3, 2), ResizeConv2d(3, 2), CoordConv2d(3, 2), UpsampleConv2d(3, 2)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.complex64])
def test_maps_that_are_no_floating_point_numbers_are_refused(layer, dtype):
    """Weights that are cast to bytes are zero."""
    with pytest.raises((RuntimeError, NotImplementedError)):
        layer(torch.ones(1, 3, 4, 4, dtype=dtype))


def test_a_batch_norm_of_groups_takes_images_alone():
    with pytest.raises(ValueError, match="expected 4D input"):
        GroupedBatchNorm2d(3)(torch.ones(3, 4, 4))
    norm = GroupedBatchNorm2d(3, relu_first=True)
    assert norm(torch.ones(0, 3, 4, 4), groups=2).shape == (0, 3, 4, 4)
    assert norm.running_var.equal(torch.ones(3))  # torch's stays too


@pytest.mark.parametrize("affine", [False, True])
@layouts
def test_instance_norms_refuse_and_give_what_torchs_do(affine, channels_last):
    ours, theirs = InstanceNorm2d(3, affine=affine), nn.InstanceNorm2d(3, affine=affine)
    maps = torch.randn(2, 3, 5, 5)
    nan, inf = maps.clone(), maps.clone()
    nan[0, 0, 1, 2], inf[0, 1, 0, 0] = torch.nan, torch.inf
    batches = [
        maps,
        maps[:, :, :1, :1],
        maps[:0],
        maps[0],
        maps.double(),
        maps.to(torch.complex64),
        maps.int(),
        nan,
        inf,
    ]
    for x in [*batches, 1e30 * maps, 1e-30 * maps]:
        if channels_last and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        outcomes = []
        for layer in (ours, theirs):
            try:
                outcomes.append(layer(input=x))
            except (ValueError, RuntimeError, IndexError) as error:
                outcomes.append((type(error), str(error)))
        found, expected = outcomes
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(found, expected, equal_nan=True)
        else:
            assert found == expected
    with pytest.raises(TypeError, match="keyword argument 'x'"):
        ours(x=maps)
    if affine:
        with pytest.raises(RuntimeError, match="Tensor on device meta is not on the expected device cpu"):
            ours.to("meta")(maps)


@pytest.mark.parametrize("affine", [False, True])
def test_an_instance_norm_becomes_torchscript(affine):
    x = torch.randn(2, 3, 4, 4)
    for layer in (InstanceNorm2d(3, affine=affine), InstanceNormAct2d(3, "gelu", affine=affine)):
        torch.testing.assert_close(torch.jit.script(layer)(x), layer(x))


@layouts
@pytest.mark.parametrize("far", [0.0, 7.3, 1e4, 1e6])
def test_maps_far_from_zero_are_at_least_as_exact_as_torchs(channels_last, far):
    x = torch.randn(2, 3, 16, 16) + far
    for maps in (x, torch.full_like(x, far)):
        exact = F.instance_norm(maps.double())
        torchs = (F.instance_norm(maps).double() - exact).abs().max()
        arranged = maps.contiguous(memory_format=torch.channels_last) if channels_last else maps
        for found in (InstanceNorm2d(3)(arranged), InstanceNorm2d(3, affine=True)(arranged)):
            assert (found.double() - exact).abs().max() <= 1.01 * torchs + 1e-6


@layouts
def test_a_flat_map_without_eps_is_zero(channels_last):
    x = torch.full((2, 3, 4, 4), 0.1)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    assert torch.equal(InstanceNorm2d(3, eps=0)(x), torch.zeros_like(x))
    tiny = torch.randn_like(x) * 1e-25  # whose squares are zero
    assert torch.equal(InstanceNorm2d(3, eps=0)(tiny), torch.zeros_like(x))


@pytest.mark.parametrize("tracking", [False, True])
def test_a_gradient_in_channels_last_of_one_contiguous_sample(tracking):
    """Of which torch 2.13's own instance norm makes another gradient."""
    layer, x = InstanceNorm2d(3, affine=True, track_running_stats=tracking).double(), torch.randn(1, 3, 6, 4).double()
    probe = torch.randn(1, 3, 6, 4, dtype=torch.float64)
    expected = gradients(layer, x, lambda y: y * probe)
    assert_close(gradients(layer, x, lambda y: y * probe.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DenseBlock(3, 2, activation="instance_norm"), "activation 'instance_norm': choose one of"),
        (lambda: DenseBlock(3, 2, impl="cuda"), "impl 'cuda': choose one of"),
        (lambda: InstanceNorm2d(3, impl="cuda"), "impl 'cuda': choose one of"),
        (lambda: InstanceNormAct2d(3, "instance_norm"), "activation 'instance_norm': choose one of"),
        (lambda: InstanceNormAct2d(3, 1e-5), "activation 1e-05: choose one of"),
        (lambda: InstanceNormAct2d(3, nn.Tanh()), "choose one of identity, relu"),
        (lambda: instance_norm_act(torch.ones(1, 1, 2, 2), "tanh"), "activation 'tanh': choose one of"),
        (lambda: InstanceNormAct2d(3, impl="cuda"), "impl 'cuda': choose one of"),
        (lambda: InstanceNormReLU(impl="cuda"), "impl 'cuda': choose one of"),
        (lambda: ResizeConv2d(3, 2, impl="cuda"), "impl 'cuda': choose one of"),
        (lambda: UpsampleConv2d(3, 2, impl="cuda"), "impl 'cuda': choose one of"),
        (lambda: CoordConv2d(3, 2, impl="cuda"), "impl 'cuda': choose one of"),
        (lambda: WinogradConv2d(3, 2, 3, impl="cuda"), "impl 'cuda': choose one of"),
    ],
)
def test_unknown_names_are_refused_where_a_layer_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_impl_of_a_layer_is_its_form():
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    for impl in ("reference", "fused"):
        torch.testing.assert_close(InstanceNorm2d(3, impl=impl)(x), nn.InstanceNorm2d(3)(x))
    with pytest.raises(ValueError, match="impl 'triton'"):
        InstanceNorm2d(3, impl="triton")(x.double())
