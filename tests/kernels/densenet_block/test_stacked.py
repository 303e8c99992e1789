"""Dense blocks as several people write them, on one stack, against their own forwards."""

import copy
import io
from functools import cache, partial

import pytest
import torch
from torch import nn

from bench.others.written_here import FCDenseBlock
from lorbms_fast.kernels import accelerate, restore, use_impl
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels._common.winograd import cpp as winograd
from lorbms_fast.kernels.densenet_block import StackedBlock, stacked, stacked_kind
from lorbms_fast.kernels.densenet_block import layers as of_blocks
from tests.kernels.densenet_block.steps import assert_close, draw_norms, maps, outcome

C, GROWTH = 5, 4


def layer(before, growth=GROWTH, dropout=0.0, bias=True, **options):
    convolution = nn.Conv2d(before, growth, 3, padding=1, bias=bias, **options)
    return nn.Sequential(nn.BatchNorm2d(before), nn.ReLU(True), convolution, nn.Dropout(dropout))


class Tiramisu(nn.Module):
    """With its input before its new maps."""

    def __init__(self, layers=3, **options):
        super().__init__()
        self.layers = nn.ModuleList(layer(C + i * GROWTH, **options) for i in range(layers))

    def forward(self, x):
        for each in self.layers:
            x = torch.cat([x, each(x)], dim=1)
        return x


class Appending(nn.Module):
    """A layer with a bottleneck that gives what it reads, too."""

    def __init__(self, before, dropout=0.0):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, 2 * GROWTH, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(2 * GROWTH), nn.Conv2d(2 * GROWTH, GROWTH, 3, padding=1, bias=False)
        self.relu1, self.relu2, self.dropout = nn.ReLU(), nn.ReLU(), nn.Dropout2d(dropout)

    def forward(self, x):
        y = self.conv2(self.relu2(self.norm2(self.conv1(self.relu1(self.norm1(x))))))
        return torch.cat([x, self.dropout(y)], 1)


class InTurn(nn.Sequential):
    """As MONAI's."""

    def __init__(self, layers=3, **options):
        super().__init__(*(Appending(C + i * GROWTH, **options) for i in range(layers)))


class Listed(Tiramisu):
    """All maps in a list, from which only the new ones come out; a layer is left out of the stack's end."""

    def forward(self, x):
        maps = [x]
        for each in self.layers:
            maps.append(each(torch.concat(maps, 1)))
        return torch.cat(maps[1:], 1)


BLOCKS = {
    "FC-DenseNet": partial(FCDenseBlock, C, GROWTH, 3),
    "Tiramisu": Tiramisu,
    "in turn": InTurn,
    "listed": Listed,
}


@pytest.fixture(params=BLOCKS)
def kind(request):
    return BLOCKS[request.param]


@pytest.fixture(autouse=True)
def however_few(monkeypatch):
    monkeypatch.setattr(stacked, "FEW", 1)


def pair(kind, dtype=torch.float64, dropout=0.0):
    """The block as it was written, and on a stack."""
    return copy.deepcopy(made(kind, dtype, dropout))


@cache
def made(kind, dtype, dropout):
    torch.manual_seed(0)
    theirs = kind(dropout=dropout).to(dtype)
    draw_norms(theirs)
    ours = copy.deepcopy(theirs)
    accelerate(ours, save_memory=True)
    assert issubclass(type(ours), StackedBlock)
    assert isinstance(ours, type(theirs))
    return theirs, ours


@pytest.mark.parametrize(
    ("native", "channels_last", "dropout"),
    [(True, False, 0.3), (True, True, 0.0), (True, True, 1.0), (False, False, 0.0), (False, True, 0.3)],
)
def test_a_step_is_its_own(kind, native, channels_last, dropout):
    theirs, ours = pair(kind, dropout=dropout)
    x = maps(3, C, 7, 9, channels_last=channels_last)
    for training in (True, False):
        for block in (theirs, ours):
            block.train(training)
        with native_loops(native):
            assert_close(outcome(ours, x), outcome(theirs, x))
            with torch.no_grad():
                assert_close([ours.eval()(x)], [theirs.eval()(x)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_exact_as_its_own(kind, dtype):
    theirs, ours = pair(kind, torch.float32)
    exact = outcome(copy.deepcopy(theirs).double(), maps(2, C, 16, 16).to(dtype).double())
    x = maps(2, C, 16, 16, dtype=dtype, channels_last=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        found, expected = outcome(ours, x), outcome(theirs, x)
    for f, t, e in list(zip(found, expected, exact, strict=True))[2:]:
        assert f.dtype == t.dtype
        scale = e.double().abs().max()
        assert (f.double() - e).abs().max() <= 2 * (t.double() - e).abs().max() + 30 * torch.finfo(dtype).eps * scale


def test_gradients_of_gradients(kind):
    def penalty(block):
        torch.manual_seed(2)
        z = maps(2, C, 4, 4).requires_grad_()
        (slope,) = torch.autograd.grad(block(z).pow(3).sum(), z, create_graph=True)
        wanted = [z, *block.parameters()]
        grads = torch.autograd.grad(slope.flatten(1).norm(dim=1).square().sum(), wanted, allow_unused=True)
        return [slope.detach(), *(g for g in grads if g is not None)]

    theirs, ours = pair(kind, dropout=0.3)
    assert_close(penalty(ours), penalty(theirs), 1e-8)


def test_parts_frozen(kind):
    theirs, ours = pair(kind)
    for block in (theirs, ours):
        for parameter in list(block.parameters())[1::3]:
            parameter.requires_grad_(False)
        [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)][1].eval()
    assert_close(outcome(ours, maps(2, C, 6, 6)), outcome(theirs, maps(2, C, 6, 6)))


@pytest.mark.parametrize("channels_last", [False, True])
def test_in_place_behind_it(kind, channels_last):
    theirs, ours = pair(kind)
    x = maps(2, C, 6, 6, channels_last=channels_last)
    assert_close(outcome(ours, x, lambda y: y.mul_(2).sin()), outcome(theirs, x, lambda y: (y * 2).sin()))


@pytest.mark.parametrize("kind", [Tiramisu, InTurn])
def test_its_own_forward_runs_where_it_has_to(kind):
    theirs, ours = pair(kind)
    x = maps(2, C, 6, 6)
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    assert_close([compiled(x)], [theirs(x)])
    assert_close([torch.func.functional_call(ours, dict(ours.named_parameters()), x)], [theirs(x)])
    assert_close([torch.vmap(ours.eval())(x[None])[0]], [theirs.eval()(x)])
    with use_impl("reference"):
        assert_close([ours(x)], [theirs(x)])
    seen = []
    convolution = next(m for m in ours.modules() if isinstance(m, nn.Conv2d))
    convolution.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    assert_close([ours(x)], [theirs(x)])
    assert len(seen) == 1


def test_a_layer_that_is_replaced(kind):
    theirs, ours = pair(kind)
    for block in (theirs, ours):
        names = {type(m): name for name, m in block.named_modules()}
        block.set_submodule(names[nn.ReLU], nn.Sigmoid())
    assert_close(outcome(ours, maps(2, C, 6, 6)), outcome(theirs, maps(2, C, 6, 6)))


def test_copied_saved_and_restored(kind):
    theirs, ours = pair(kind)
    x = maps(2, C, 6, 6)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    for other in (copy.copy(ours), copy.deepcopy(ours), torch.load(file, weights_only=False)):
        assert type(other) is type(ours) is stacked_kind(type(theirs))
        assert_close([other.eval()(x)], [theirs.eval()(x)])
        restore(other)
        assert [type(m) for m in other.modules()] == [type(m) for m in theirs.modules()]
    assert list(theirs.state_dict()) == list(ours.state_dict())


def test_it_keeps_the_stack_alone():
    """And its input, and what it makes is a copy: of twelve layers a seventh of what torch keeps."""
    theirs, ours = pair(partial(Tiramisu, 12), torch.float32)
    kept = []
    for block in (theirs, ours):
        storages = {}

        def pack(tensor, storages=storages):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            block(maps(2, C, 16, 16, dtype=torch.float32).requires_grad_())
        for parameter in block.parameters():
            storages.pop(parameter.untyped_storage().data_ptr(), None)
        kept.append(sum(storages.values()))
    assert kept[1] < kept[0] / 7


class Halved(Tiramisu):
    def forward(self, x):
        return super().forward(x) if self.training else super().forward(x)[:, ::2]


class Backwards(Tiramisu):
    def forward(self, x):
        for each in self.layers:
            x = torch.cat([each(x), x], 1)
        return x


class Plus(Tiramisu):
    def forward(self, x):
        first, second, _ = self.layers
        x = torch.cat([x, first(x)], 1)
        return torch.cat([x, second(x) + 1], 1)


class Sparse(Tiramisu):
    def forward(self, x):
        first, second, _ = self.layers
        y = first(x)
        z = torch.cat([x, y], 1)
        return torch.cat([x, second(z)], 1)


class Rows(Tiramisu):
    def forward(self, x):
        for each in self.layers:
            x = torch.cat([x, each(x)], 2)
        return x


class Peeking(InTurn):
    """The last one's bottleneck is read as it was before its norm, too."""

    def forward(self, x):
        x = self[0](x)
        last = self[1]
        y = last.conv1(last.relu1(last.norm1(x)))
        return torch.cat([x, y, last.conv2(last.relu2(last.norm2(y)))], 1)


class Graphless(Tiramisu):
    def forward(self, x):
        for each in self.layers:
            with torch.no_grad():
                y = each(x)
            x = torch.cat([x, y], 1)
        return x


class Skipping(Tiramisu):
    def forward(self, x):
        for each in self.layers:
            x = torch.cat([x, each(x) if self.training else each[:3](x)], 1)
        return x


class Keeping(Tiramisu):
    def forward(self, x):
        self.result = super().forward(x)
        return self.result


class Collecting(Tiramisu):
    def __init__(self):
        super().__init__()
        self.results = []

    def forward(self, x):
        self.results.append(super().forward(x))
        return self.results[-1]


@pytest.mark.parametrize(
    "kind",
    [Halved, Backwards, Plus, Sparse, Rows, Peeking, Graphless, Skipping, Keeping, Collecting, partial(Tiramisu, 1)],
)
def test_what_is_something_else(kind):
    report = accelerate(nn.Sequential(kind()), save_memory=True)
    assert not [finding for finding in report if "Stacked" in finding.what or "dense block" in finding.what]


def test_why_not():
    shared, hooked, swapped = Tiramisu(), Tiramisu(), Tiramisu()
    shared.layers[1][0].affine, shared.layers[1][0].weight, shared.layers[1][0].bias = False, None, None
    hooked.layers[0].register_forward_hook(lambda *args: None)
    swapped.layers[1][1], swapped.layers[1][3] = nn.Dropout(), nn.ReLU()
    grouped = Tiramisu()
    grouped.layers[1][2] = nn.Conv2d(C + GROWTH, GROWTH, 3, padding=2, dilation=2)
    for block, reason in (
        (shared, "a norm has no weight and bias"),
        (hooked, "there are hooks"),
        (swapped, "not a norm, ReLU and 3x3 convolution"),
        (grouped, "another convolution than a dense layer's"),
    ):
        (finding,) = (f for f in accelerate(nn.Sequential(block), save_memory=True) if "dense block" in f.what)
        assert (finding.where, reason in finding.why_not) == ("0", True)


def test_other_rules_leave_what_blocks_compute():
    model = nn.Sequential(Tiramisu(), nn.BatchNorm2d(C + 3 * GROWTH), nn.ReLU())
    accelerate(model, save_memory=True)
    assert {type(m) for m in model[0].layers.modules()} <= {
        nn.ModuleList, nn.Sequential, nn.BatchNorm2d, nn.ReLU, nn.Conv2d, nn.Dropout,
    }  # fmt: skip
    assert not accelerate(model, save_memory=True).swapped


def test_norms_joined_before():
    theirs, block = pair(Tiramisu)
    restore(block)
    accelerate(block)
    assert type(block) is Tiramisu
    assert [f.what for f in accelerate(block, save_memory=True)] == ["Tiramisu -> StackedTiramisu"]
    assert_close(outcome(block, maps(2, C, 6, 6)), outcome(theirs, maps(2, C, 6, 6)))


def test_few_positions_go_through_its_own_layers(monkeypatch):
    monkeypatch.setattr(stacked, "FEW", 100)
    _, ours = pair(Tiramisu)
    seen = []
    monkeypatch.setattr(stacked, "stacked", lambda x, *others: seen.append(len(x)) or of_blocks.stacked(x, *others))
    for samples in (1, 3, 4, 5):
        ours(maps(samples, C, 5, 5))
    assert seen == [4, 5]


@pytest.mark.skipif(not winograd.runs(), reason="no AVX2, or no C++ compiler")
def test_few_positions_that_loops_convolve(monkeypatch):
    monkeypatch.setattr(stacked, "FEW", 100)
    torch.manual_seed(0)
    theirs = FCDenseBlock(16, 16, 3, 0.0)
    ours = copy.deepcopy(theirs)
    accelerate(ours, save_memory=True)
    seen = []
    monkeypatch.setattr(stacked, "stacked", lambda x, *others: seen.append(len(x)) or of_blocks.stacked(x, *others))
    for samples in (1, 2, 3):
        x = torch.randn(samples, 16, 5, 5)
        assert_close(outcome(ours, x), outcome(theirs, x), 1e-4)
    assert seen == [2, 3]
