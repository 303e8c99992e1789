"""Torchvision's dense block on one shared stack, against blocks written by hand and against torchvision's own."""

import copy
import io
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench.others import with_torchvision
from lorbms_fast.kernels import DenseNetBlock, use_impl
from lorbms_fast.kernels._common.cpp import native_loops
from tests.kernels.densenet_block.steps import assert_close, draw_norms, maps, norms, outcome


class Layer(nn.Module):
    def __init__(self, C, k, size, p):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(C), nn.Conv2d(C, size * k, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(size * k), nn.Conv2d(size * k, k, 3, padding=1, bias=False)
        self.p = p

    def forward(self, x):
        y = self.conv2(self.norm2(self.conv1(self.norm1(x).relu())).relu())
        return F.dropout(y, self.p, self.training) if self.p else y


class Block(nn.Module):
    """As the paper writes it."""

    def __init__(self, layers, C, size, k, p=0.0):
        super().__init__()
        for i in range(layers):
            self.add_module(f"denselayer{i + 1}", Layer(C + i * k, k, size, p))

    def forward(self, x):
        for layer in self.children():
            x = torch.cat([x, layer(x)], 1)
        return x


def pair(dtype=torch.float64, layers=3, C=5, size=2, k=4, p=0.0, **options):
    """The hand-written block, and ours with its state."""
    torch.manual_seed(0)
    theirs = Block(layers, C, size, k, p)
    draw_norms(theirs)
    ours = DenseNetBlock(layers, C, size, k, p)
    ours.load_state_dict(theirs.state_dict())
    for block in (theirs, ours):
        for norm in norms(block):
            for name, value in options.items():
                setattr(norm, name, value)
    return theirs.to(dtype), ours.to(dtype)


@pytest.mark.parametrize("native", [True, False], ids=["loops", "torch"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("p", [0.0, 0.3], ids=["", "dropout"])
def test_a_step_is_the_definitions(native, channels_last, p):
    x = maps(3, 5, 7, 9, channels_last=channels_last)
    for training, momentum in ((True, 0.1), (True, None), (False, 0.1)):
        theirs, ours = pair(p=p, momentum=momentum)
        for block in (theirs, ours):
            block.train(training)
        with native_loops(native):
            for _ in range(2):
                assert_close(outcome(ours, x), outcome(theirs, x))
            with torch.no_grad():
                torch.manual_seed(5)
                found = ours(x)
        torch.manual_seed(5)
        assert_close([found], [theirs(x).detach()])
        assert_close(ours.state_dict().values(), theirs.state_dict().values())


@pytest.mark.parametrize("seed", range(12))
def test_any_shape(seed):
    draw = torch.Generator().manual_seed(seed)
    layers, C, size, k, N, H, W = (int(torch.randint(1, 7, (1,), generator=draw)) for _ in range(7))
    theirs, ours = pair(layers=layers, C=C, size=size, k=k)
    x = maps(N + (N * H * W == 1), C, H, W, channels_last=bool(seed % 2))
    found, expected = outcome(ours, x), outcome(theirs, x)
    del found[1], expected[1]  # strides of a size of 1 mean nothing
    assert_close(found, expected, 1e-8)


def test_several_spans_of_rows_and_chunks(monkeypatch):
    monkeypatch.setattr("lorbms_fast.kernels.densenet_block.products._CHUNK", 1)
    theirs, ours = pair(layers=2)
    x = maps(2, 5, 23, 17)
    assert_close(outcome(ours, x), outcome(theirs, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("far", [0.0, 1e3])
def test_as_exact_as_torchs_own(dtype, far):
    x = maps(2, 5, 8, 8) + far
    exact, _ = pair()
    theirs, ours = pair(dtype)
    expected = outcome(exact, x.to(dtype).double())
    for f, t, e in list(zip(outcome(ours, x.to(dtype)), outcome(theirs, x.to(dtype)), expected, strict=True))[2:]:
        scale = e.abs().max()
        assert (f.double() - e).abs().max() <= 2 * (t.double() - e).abs().max() + 30 * torch.finfo(dtype).eps * scale


@pytest.mark.parametrize("channels_last", [False, True])
def test_autocast(channels_last):
    theirs, ours = pair(torch.float32)
    x = maps(2, 5, 8, 8, dtype=torch.bfloat16, channels_last=channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = outcome(ours, x), outcome(theirs, x)
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == e.dtype
        assert (f.double() - e.double()).abs().max() <= 0.05 * e.double().abs().max() + 1e-6
    with torch.autocast("cpu", torch.bfloat16):  # float32 maps: concatenations become float32
        assert_close([ours(x.float())], [theirs(x.float())], 0.05)


def test_some_norms_and_weights_frozen():
    theirs, ours = pair()
    for block in (theirs, ours):
        for norm in norms(block)[1:4]:
            norm.eval()
        for parameter in list(block.parameters())[1::3]:
            parameter.requires_grad_(False)
    x = maps(2, 5, 6, 6)
    assert_close(outcome(ours, x), outcome(theirs, x))
    for norm in [*norms(ours), *norms(theirs)]:
        norm.eval()
    x = maps(1, 5, 1, 1)
    assert_close(outcome(ours, x), outcome(theirs, x))


@pytest.mark.parametrize("momentum", [0.3, None])
def test_a_norm_of_two_layers_moves_twice(momentum):
    theirs, ours = pair(momentum=momentum)
    for block in (theirs, ours):
        block.denselayer2.norm2 = block.denselayer1.norm2
    x = maps(2, 5, 6, 6)
    assert_close(outcome(ours, x), outcome(theirs, x))


def test_norms_with_momenta_of_their_own():
    theirs, ours = pair()
    for block in (theirs, ours):
        for norm, momentum in zip(norms(block), [0.1, 0.5, None, 0.5, None, 0.2], strict=True):
            norm.momentum = momentum
        norms(block)[3].num_batches_tracked.fill_(3)
        norms(block)[4].num_batches_tracked.fill_(7)
    x = maps(2, 5, 6, 6)
    for _ in range(2):
        assert_close(outcome(ours, x), outcome(theirs, x))


def test_norms_that_track_nothing():
    theirs, ours = pair(track_running_stats=False, running_mean=None, running_var=None, num_batches_tracked=None)
    for block in (theirs, ours):
        block.eval()
    x = maps(2, 5, 6, 6)
    assert_close(outcome(ours, x), outcome(theirs, x))


def test_gradients_of_gradients():
    theirs, ours = pair(p=0.3)
    x = maps(2, 5, 4, 4)

    def penalty(block):
        torch.manual_seed(2)
        z = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(block(z).pow(3).sum(), z, create_graph=True)
        return [
            slope.detach(),
            *torch.autograd.grad(
                (slope.flatten(1).norm(dim=1) - 1).square().sum(), [z, *block.parameters()], allow_unused=True
            ),
        ]

    for f, e in zip(penalty(ours), penalty(theirs), strict=True):
        assert (f is None) == (e is None)
        if f is not None:
            torch.testing.assert_close(f, e, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("channels_last", [False, True])
def test_in_place_behind_it(channels_last):
    theirs, ours = pair()
    x = maps(2, 5, 6, 6, channels_last=channels_last)
    assert_close(outcome(ours, x, lambda y: y.mul_(2).sin()), outcome(theirs, x, lambda y: (y * 2).sin()))


def test_compiled_in_one_graph():
    theirs, ours = pair(layers=2)
    torch._dynamo.reset()
    x = maps(2, 5, 6, 6)
    assert_close(outcome(torch.compile(ours, fullgraph=True, backend="aot_eager"), x), outcome(theirs, x))


def test_recorded_and_scripted():
    _, ours = pair(layers=2)
    ours.eval()
    x = maps(2, 5, 6, 6)
    recorded = torch.fx.symbolic_trace(nn.Sequential(nn.Identity(), ours))
    assert [node.target for node in recorded.graph.nodes if node.op == "call_module"] == ["0", "1"]
    for other in (recorded, torch.jit.script(ours), torch.jit.trace(ours, x), copy.deepcopy(ours)):
        assert_close([other(x)], [ours(x)])
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    assert_close([torch.load(file, weights_only=False)(x)], [ours(x)])
    assert copy.deepcopy(ours).to("meta")(x.to("meta")).shape == ours(x).shape
    with use_impl("reference"):
        assert_close([ours(x)], [pair(layers=2)[0].eval()(x)])


def test_hooks_of_layers_are_called():
    theirs, ours = pair()
    seen = []
    ours.denselayer2.conv1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    x = maps(2, 5, 6, 6)
    assert_close(outcome(ours, x), outcome(theirs, x))
    assert seen == [(2, 8, 6, 6)]


def test_a_convolution_with_a_bias():
    theirs, ours = pair()
    theirs.denselayer2.conv2 = nn.Conv2d(8, 4, 3, padding=1).double()
    ours.denselayer2.conv2 = copy.deepcopy(theirs.denselayer2.conv2)
    assert_close(outcome(ours, maps(2, 5, 6, 6)), outcome(theirs, maps(2, 5, 6, 6)))


def test_weights_computed_by_others():
    theirs, ours = pair()
    for block in (theirs, ours):
        torch.manual_seed(4)
        nn.utils.parametrizations.spectral_norm(block.denselayer1.conv1)
    x = maps(2, 5, 6, 6)
    assert_close([ours(x)], [theirs(x)])


def test_one_position_is_refused_as_by_torch():
    theirs, ours = pair()
    for block in (theirs, ours):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            block(maps(1, 5, 1, 1))
    with pytest.raises(ValueError, match="impl 'cuda'"):
        DenseNetBlock(2, 5, impl="cuda")


def kept_bytes(block, x):
    """Of all tensors kept for the backward but parameters."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = block(x.requires_grad_())
    for parameter in block.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(storages.values()), y


def test_memory_is_a_third():
    """Of densenet121's third block, in which most of its layers are."""
    theirs, ours = pair(torch.float32, layers=24, C=256, size=4, k=32)
    x = maps(1, 256, 4, 4, dtype=torch.float32)
    (found, _), (expected, _) = kept_bytes(ours, x), kept_bytes(theirs, x)
    assert found < 0.33 * expected


@pytest.fixture(scope="module")
def densenet():
    try:
        return with_torchvision.densenet()
    except ImportError:
        pytest.skip("torchvision is not installed: pip install lorbms-fast[others]")


def test_a_block_of_torchvisions(densenet):
    for training, p in product([True, False], [0.0, 0.3]):
        torch.manual_seed(0)
        theirs = densenet._DenseBlock(3, 5, 2, 4, p).double().train(training)
        before = copy.deepcopy(theirs)
        ours = DenseNetBlock.from_torchvision(theirs)
        assert [*map(id, ours.parameters())] == [*map(id, theirs.parameters())]
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert ours.training == theirs.training
        assert_close(outcome(ours, maps(2, 5, 6, 6)), outcome(before, maps(2, 5, 6, 6)))
        fresh = DenseNetBlock(3, 5, 2, 4, p)
        fresh.load_state_dict(theirs.state_dict())
        theirs.load_state_dict(fresh.state_dict())


def test_densenet121_of_torchvisions(densenet):
    torch.manual_seed(0)
    theirs = densenet.densenet121(num_classes=7).double()
    ours = copy.deepcopy(theirs)
    for i in range(1, 5):
        name = f"denseblock{i}"
        setattr(ours.features, name, DenseNetBlock.from_torchvision(getattr(ours.features, name)))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = maps(2, 3, 64, 64)
    assert_close(outcome(ours, x), outcome(theirs, x), 1e-7)


def test_what_the_rule_refuses(densenet):
    def block():
        return densenet._DenseBlock(2, 5, 2, 4, 0.0)

    hooked, grouped, biased, swapped, plain, checkpointed = (block() for _ in range(6))
    checkpointed.denselayer1.memory_efficient = True
    hooked.denselayer1.register_forward_hook(lambda *args: None)
    grouped.denselayer2.conv2 = nn.Conv2d(8, 4, 3, padding=1, groups=2)
    biased.denselayer2.conv1 = nn.Conv2d(9, 8, 1)
    swapped.denselayer2.norm1 = nn.SyncBatchNorm(9)
    plain.denselayer1.norm1 = nn.BatchNorm2d(5, affine=False)
    for changed, reason in (
        (hooked, "denselayer1 has a hook"),
        (grouped, "denselayer2: Conv2d.*groups=2.* is another convolution"),
        (biased, "denselayer2: Conv2d.* is another convolution"),
        (swapped, "denselayer2.norm1 is a SyncBatchNorm, not a BatchNorm2d"),
        (plain, "denselayer1: a norm has no weight"),
        (checkpointed, "denselayer1 is memory_efficient"),
        (nn.ReLU(), "ReLU is not torchvision"),
    ):
        with pytest.raises(ValueError, match=reason):
            DenseNetBlock.from_torchvision(changed)
