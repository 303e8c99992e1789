"""`accelerate` and `restore` on networks of others: results, training and parameters stay; nothing unsafe is done."""

import copy
import functools
import gc
import io
import logging
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from torch.utils.checkpoint import checkpoint

from lorbms_fast.kernels import (
    BatchNormAct2d,
    InstanceNorm2d,
    InstanceNormAct2d,
    InstanceNormAct3d,
    MaxPool2x2,
    ProductConv2d,
    ProductConvTranspose3d,
    UpsampleConv2d,
    WinogradConv2d,
    WinogradConv3d,
    accelerate,
    restore,
)
from lorbms_fast.kernels._common.cpp import native_loops
from lorbms_fast.kernels._common.winograd import cpp as winograd
from lorbms_fast.kernels.accelerate import source
from lorbms_fast.kernels.accelerate.rules import spectral_norm as rule_of_spectral_norms
from lorbms_fast.kernels.accelerate.source import asks_for_types
from lorbms_fast.kernels.accelerate.swapping import Passed, kind_of
from lorbms_fast.kernels.accelerate.uses import traced_once, uses
from lorbms_fast.kernels.densenet_block import DenseNetLayer
from lorbms_fast.kernels.instance_norm import cpp
from lorbms_fast.kernels.winograd_conv import fused as winograd_conv
from tests.kernels.accelerate.models import (
    PoolingUNet,
    ResidualBlock,
    UNet,
    patch_discriminator,
    resnet,
    resnet_generator,
)

MODELS = {
    "CycleGAN's generator": (resnet_generator, (2, 3, 16, 20)),
    "U-Net of volumes": (UNet, (1, 1, 8, 12, 8)),
    "ResNet": (resnet, (2, 3, 12, 16)),
    "U-Net with pools": (PoolingUNet, (2, 3, 9, 12)),
    "PatchGAN, parametrized": (lambda: patch_discriminator(parametrizations.spectral_norm), (2, 3, 32, 32)),
    "PatchGAN, with hooks": (lambda: patch_discriminator(spectral_norm), (2, 3, 32, 32)),
}
models = pytest.mark.parametrize("name", MODELS)
layouts = pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])

pytestmark = pytest.mark.skipif(not cpp.take(torch.ones(1, 1, 2, 2)), reason="no C++ compiler: norms stay torch's")


def made(name, channels_last=False):
    torch.manual_seed(0)
    make, shape = MODELS[name]
    model, x = make().double(), torch.randn(shape, dtype=torch.float64)
    layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    return (model.to(memory_format=layout), x.contiguous(memory_format=layout)) if channels_last else (model, x)


def trained(model, x, steps=3):
    """Outputs, losses and state of some steps."""
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        y = model(x)
        y.square().mean().backward()
        optimizer.step()
        found.append(y.detach())
    return [*found, *model.state_dict().values(), model.eval()(x)]


def assert_close(found, expected):
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-7, atol=1e-9)


@models
@layouts
def test_training_goes_as_before(name, channels_last):
    model, x = made(name, channels_last)
    plain, names = copy.deepcopy(model), list(model.state_dict())
    parameters = [id(parameter) for parameter in model.parameters()]
    report = accelerate(model)
    assert report.swapped
    assert list(model.state_dict()) == names
    assert [id(parameter) for parameter in model.parameters()] == parameters
    assert_close(trained(model, x), trained(plain, x))


@models
def test_restored_exactly(name):
    model, x = made(name)
    plain = copy.deepcopy(model)
    attributes = [dict(vars(module)) for module in model.modules()]
    accelerate(model)
    model(x)
    restore(model)
    plain(x)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    for module, before in zip(model.modules(), attributes, strict=True):
        assert vars(module).keys() == before.keys()
    assert not model._forward_hooks
    assert_close(trained(model, x), trained(plain, x))
    assert repr(model) == repr(plain)


@models
def test_copies_states_and_files(name):
    model, x = made(name)
    accelerate(model)
    other, file = copy.deepcopy(model), io.BytesIO()
    copies = [other]
    if "parametrized" not in name:  # which torch refuses to write
        torch.save(model, file)
        file.seek(0)
        copies.append(torch.load(file, weights_only=False))
    expected = model(x)
    for again in copies:
        torch.testing.assert_close(again(x), expected)
        restore(again)
        assert not any("lorbms" in type(module).__module__ for module in again.modules())
    fresh, _ = made(name)
    fresh.load_state_dict(model.state_dict())
    assert model.float()(x.float()).dtype == torch.float32


@models
def test_a_second_time_changes_nothing(name):
    model, x = made(name)
    accelerate(model)
    kinds = [type(module) for module in model.modules()]
    assert not accelerate(model).swapped
    assert [type(module) for module in model.modules()] == kinds
    model(x)


@models
def test_second_derivatives_and_compiling(name):
    model, x = made(name)
    plain = copy.deepcopy(model)
    accelerate(model)
    penalties = []
    for network in (model, plain):
        z = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(z).pow(2).sum(), z, create_graph=True)
        penalties.append(torch.autograd.grad(slope.square().sum(), list(network.parameters()), allow_unused=True))
    for f, e in zip(*penalties, strict=True):
        if e is not None:
            torch.testing.assert_close(f, e, rtol=1e-6, atol=1e-9)
    if name in ("ResNet", "U-Net with pools", "PatchGAN, parametrized"):
        torch._dynamo.reset()
        compiled = torch.compile(model.eval(), fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), plain.eval()(x))


def test_what_becomes_of_layers():
    generator, volumes, pooling = resnet_generator(), UNet(), PoolingUNet()
    report = accelerate(generator)
    assert isinstance(generator[2], InstanceNormAct2d)
    assert isinstance(generator[3], Passed)
    assert type(generator[10].conv_block[6]) is InstanceNorm2d  # no activation is behind it
    assert isinstance(generator[13], UpsampleConv2d)
    assert isinstance(generator[12], Passed)
    assert type(generator[0]) is nn.ReflectionPad2d  # by three
    assert [f.what for f in report if f.where == "13"] == ["Conv2d -> UpsampleConv2d"]
    assert not report.left
    accelerate(volumes)
    assert isinstance(volumes.down[0].norm, InstanceNormAct3d)
    assert volumes.down[0].norm.activation == "leaky_relu"
    assert volumes.down[0].nonlin is volumes.down[0].all_modules[2]
    accelerate(pooling)
    assert isinstance(pooling.norm2, InstanceNormAct2d)
    assert isinstance(pooling.act, Passed)
    assert isinstance(pooling.pool, MaxPool2x2)
    batches = resnet()
    accelerate(batches)
    assert [isinstance(batches[i], BatchNormAct2d) for i in (1, 4, 8, 10)] == [True, True, True, False]
    assert (batches[4].activation, batches[4].negative_slope) == ("leaky_relu", 0.2)
    assert type(batches[3].bn1) is type(batches[3].bn2) is nn.BatchNorm2d  # one ReLU is behind a sum as well


def test_batch_norms_that_stay():
    class Own(nn.BatchNorm2d):
        pass

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.relu = nn.BatchNorm2d(3), nn.ReLU(True)

        def forward(self, x):
            y = self.norm(x)
            return self.relu(y) + y

    class CallsFunction(Reads):
        def forward(self, x):
            return torch.relu(self.norm(x))

    parametrized = parametrizations.weight_norm(nn.BatchNorm2d(3), dim=None)
    frozen, hooked = nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3)
    hooked.register_forward_hook(lambda *_: None)
    for norm in (Own(3), nn.SyncBatchNorm(3), frozen, parametrized, hooked, Reads(), CallsFunction()):
        model, x = nn.Sequential(norm, nn.ReLU(True)), torch.randn(2, 3, 4, 4, requires_grad=True)
        kinds = [type(module) for module in model.modules()]
        accelerate(model)
        assert [type(module) for module in model.modules()] == kinds
    dropout = nn.Dropout(0.5, inplace=True)  # may change what an activation in front of it needs for its backward
    model = nn.Sequential(nn.BatchNorm2d(3), dropout, nn.ReLU())
    assert not accelerate(model).swapped
    model(x).sum().backward()


def test_batch_norms_of_models_in_evaluation():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).eval()
    x, plain = torch.randn(2, 3, 4, 4), copy.deepcopy(model)
    accelerate(model)
    assert isinstance(model[0], BatchNormAct2d)
    torch.testing.assert_close(model(x), plain(x))
    torch.testing.assert_close(model.train()(x), plain.train()(x))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2, self.act = nn.InstanceNorm2d(3), nn.InstanceNorm2d(3), nn.LeakyReLU(0.2)

    def forward(self, x):
        return self.act(self.norm2(self.act(self.norm1(x))) + x)


class ReadsBetween(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.InstanceNorm2d(3), nn.SiLU())

    def forward(self, x):
        features = []
        for layer in self.layers:
            x = layer(x)
            if x.mean() < 7:
                features.append(x)
        return torch.cat(features, 1)


class OnlyCalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.last = nn.Sequential(nn.InstanceNorm2d(3), nn.SiLU()), None

    def forward(self, x, twice=False):
        y = self.layers(x).type(x.dtype)
        return self.layers(y) if twice or len(x) > 5 else y


class Optional(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.act = nn.InstanceNorm2d(3), nn.SiLU()

    def forward(self, x, features=None):
        y = self.norm(x)
        return self.act(y) if features is None else self.act(y) + features * y


class InTraining(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.act, self.seen = nn.InstanceNorm2d(3), nn.SiLU(), []

    def forward(self, x):
        y = self.norm(x)
        self.seen.append(y)
        return self.act(y) + y if self.training else self.act(y)


class ActivationWithoutGradients(Optional):
    def forward(self, x):
        y = self.norm(x)
        with torch.no_grad():
            z = self.act(y)
        return z


class EnlargingWithoutGradients(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.up, self.conv = nn.Conv2d(3, 3, 1), nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        y = self.before(x)
        torch.set_grad_enabled(False)
        y = self.up(y)
        torch.set_grad_enabled(True)
        return self.conv(y)


class NormInAutocast(Optional):
    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            y = self.norm(x)
        return self.act(y)


@pytest.mark.parametrize("kind", [ActivationWithoutGradients, EnlargingWithoutGradients, NormInAutocast])
def test_nothing_is_joined_across_a_change_of_mode(kind):
    model, x = kind(), torch.randn(2, 3, 8, 8, requires_grad=True)
    parameters = [x, *model.parameters()]

    def trained():
        result = model(x)
        if result.requires_grad:
            result.sum().backward()
        found = [result, *(parameter.grad for parameter in parameters)]
        for parameter in parameters:
            parameter.grad = None
        return found

    expected = trained()
    accelerate(model)
    assert not any(isinstance(module, Passed) for module in model.modules())
    torch.testing.assert_close(trained(), expected)


@pytest.mark.parametrize("kind", [Residual, ReadsBetween, OnlyCalls, Optional, InTraining])
@pytest.mark.parametrize("training", [True, False])
def test_only_what_is_safe(kind, training):
    model, x = kind().train(training), torch.randn(2, 3, 4, 5)
    expected = model(x)
    report = accelerate(model)
    torch.testing.assert_close(model(x), expected)
    if kind is not OnlyCalls:
        assert not any(isinstance(module, Passed) for module in model.modules())
        assert report.left
    else:
        assert isinstance(model.layers[1], Passed)
        torch.testing.assert_close(model(x, twice=True), model.layers(expected))
    if kind is InTraining:
        assert all(isinstance(y, torch.Tensor) for y in model.seen)


@pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2), nn.ReLU(True), nn.SiLU()])
def test_dropout_between_a_norm_and_its_activation(activation):
    """As MONAI has it: it commutes with what multiplies by one number above zero and another below."""
    model, x = nn.Sequential(nn.InstanceNorm2d(3), nn.Dropout(0.5), activation), torch.randn(2, 3, 8, 8)
    plain = copy.deepcopy(model)
    accelerate(model)
    assert isinstance(model[2], Passed) == (not isinstance(activation, nn.SiLU))
    results = []
    for network in (model, plain):
        torch.manual_seed(0)
        results.append(network(x))
    torch.testing.assert_close(*results)


class BatchNormAct(nn.BatchNorm2d):
    """As timm's BatchNormAct2d, which is not needed here."""

    __module__, __qualname__ = "timm.layers.norm_act", "BatchNormAct2d"

    def __init__(self, channels, act, drop=nn.Identity):
        super().__init__(channels)
        self.drop, self.act = drop(), act

    def forward(self, x):
        if self.training:
            self.num_batches_tracked.add_(1)
        running = self.running_mean, self.running_var
        x = F.batch_norm(x, *running, self.weight, self.bias, self.training, self.momentum, self.eps)
        return self.act(self.drop(x))


class BatchNormActOtherwise(BatchNormAct):
    __qualname__ = "BatchNormAct2d"

    def forward(self, x):
        return super().forward(x) + 1


def timms(*kinds, act=nn.SiLU, drop=nn.Identity):
    """With one more activation behind the norm's, as timm has an Identity and what attends to channels."""
    kind, *more = kinds
    norm = kind(4, act(), drop)
    return nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Identity(), *(layer() for layer in more), nn.Conv2d(4, 4, 1))


@layouts
def test_batch_norms_that_call_their_activation(channels_last):
    model, x = timms(BatchNormAct, nn.SiLU).double(), torch.randn(2, 3, 6, 5).double()
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    plain = copy.deepcopy(model)
    report = accelerate(model)
    assert [(f.where, f.what) for f in report.swapped] == [
        ("1", "BatchNormAct -> BatchNormAct2d of lorbms_fast"), ("1.act", "SiLU -> computed by 1"),
    ]  # fmt: skip
    assert isinstance(model[1], BatchNormAct)
    assert isinstance(model[1], BatchNormAct2d)
    assert isinstance(model[1].act, Passed)
    assert type(model[3]) is nn.SiLU
    assert not accelerate(model).swapped
    assert_close(trained(copy.deepcopy(model), x), trained(copy.deepcopy(plain), x))
    restore(model)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    assert_close(trained(model, x), trained(plain, x))


@pytest.mark.parametrize(
    "make",
    [
        lambda: timms(BatchNormActOtherwise),
        lambda: timms(BatchNormAct, drop=nn.Dropout),
        lambda: timms(BatchNormAct, act=nn.Tanh),
        lambda: timms(BatchNormAct, act=nn.Identity),
    ],
)
def test_batch_norms_that_call_something_else_stay(make):
    model = make()
    kinds = [type(module) for module in model.modules()]
    accelerate(model)
    assert [type(module) for module in model.modules()] == kinds


def test_identities_between_a_norm_and_its_activation():
    """As timm and MONAI have them where a dropout or a blur was not asked for."""
    model, x = nn.Sequential(nn.InstanceNorm2d(3), nn.Identity(), nn.Identity(), nn.SiLU()), torch.randn(2, 3, 4, 4)
    expected = model(x)
    assert [finding.where for finding in accelerate(model).swapped] == ["0", "3"]
    torch.testing.assert_close(model(x), expected)
    model[1].register_forward_hook(lambda *_: None)
    restore(model)
    assert [finding.where for finding in accelerate(model).swapped] == ["0"]
    assert type(model[3]) is nn.SiLU


def test_a_model_of_one_layer():
    for layer, kind in ((nn.InstanceNorm2d(3), InstanceNorm2d), (nn.MaxPool2d(2), MaxPool2x2), (nn.ReLU(), nn.ReLU)):
        accelerate(layer)
        assert isinstance(layer, kind)


class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.act, self.calls, self.sum = nn.InstanceNorm2d(3), nn.ReLU(), 0, torch.zeros(())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        if not isinstance(x, torch.Tensor):
            logging.getLogger("models").warning("no tensor")
            warnings.warn("no tensor", stacklevel=2)
            print(x)
        self.steps += 1
        self.calls += 1
        self.sum.add_(1)
        return self.act(self.norm(x)) * torch.rand(())


def test_looking_at_a_forward_changes_and_says_nothing(caplog, capsys):
    torch.manual_seed(0)
    model, before = Counts(), torch.get_rng_state()
    assert len(accelerate(model).swapped) == 2
    assert not caplog.records
    assert not capsys.readouterr().out
    assert (model.steps, model.calls, model.sum) == (0, 0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    model(torch.randn(1, 3, 4, 4))
    assert (model.steps, model.calls, model.sum) == (1, 1, 1)


def test_hooks_stay_and_keep_what_they_watch():
    model, seen = nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU(), nn.InstanceNorm2d(3), nn.ReLU()), []
    model[0].register_forward_hook(lambda module, inputs, y: seen.append(y.min()))
    accelerate(model)
    model(torch.randn(2, 3, 4, 4))
    assert seen[0] < 0
    assert isinstance(model[1], nn.ReLU)
    assert isinstance(model[3], Passed)


def test_which_convolutions_become_winograds_and_why_not_others():
    class Own(nn.Conv2d):
        pass

    model = nn.ModuleDict({
        "yes": nn.Conv2d(32, 48, 3, padding=1),
        "reflecting": nn.Conv2d(16, 16, 3, padding="same", padding_mode="reflect"),
        "hooked": spectral_norm(nn.Conv2d(16, 16, 3)),
        "parametrized": parametrizations.spectral_norm(nn.Conv2d(16, 16, 3)),
        "volumes": nn.Conv3d(16, 16, 3, padding=1),
        "slices": nn.Conv3d(16, 16, (1, 3, 3), padding=(0, 1, 1)),
        "own": Own(16, 16, 3),
        "lazy": nn.LazyConv2d(16, 3),
        "few": nn.Conv2d(3, 16, 3),
        "groups": nn.Conv2d(32, 32, 3, groups=2),
        "dilated": nn.Conv2d(32, 32, 3, dilation=2),
        "uneven": nn.Conv2d(32, 32, 3, padding=(1, 0)),
        "deep": nn.Conv3d(16, 16, (1, 3, 3), padding=1),
        "pointwise": nn.Conv2d(32, 32, 1),
        "strided": nn.Conv2d(32, 32, 3, 2),
    })  # fmt: skip
    model["replaced"] = nn.Conv2d(16, 16, 3)
    model["replaced"].forward = torch.relu
    kinds = {name: kind_of(module) for name, module in model.items()}
    report = accelerate(model)
    found = {finding.where: finding.why_not for finding in report if "spectral" not in finding.what}
    yes = {"yes", "reflecting", "hooked", "parametrized", "volumes", "slices"}
    assert {name for name, why_not in found.items() if why_not is None} == yes
    assert {name for name, module in model.items() if kind_of(module) in (WinogradConv2d, WinogradConv3d)} == yes
    assert found.keys() - yes == {"own", "lazy", "few", "groups", "dilated", "uneven", "deep", "replaced"}
    assert "multiples of 16" in found["few"]
    assert "groups" in found["groups"]
    assert "padded" in found["uneven"]
    assert "padded" in found["deep"]
    assert "another class" in found["own"]
    restore(model)
    assert {name: kind_of(module) for name, module in model.items()} == kinds
    with native_loops(False):
        assert "no C++ compiler" in accelerate(model["yes"])[0].why_not


class Counted(nn.Module):
    """A parametrization that is another one each time."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, weight):
        self.calls += 1
        return weight * self.calls


def counted(layer):
    register_parametrization(layer, "weight", Counted())
    return layer


PARAMETRIZED = {
    "3x3": (lambda: nn.Conv2d(16, 16, 3, padding=1), (2, 16, 9, 8), WinogradConv2d),
    "volumes": (lambda: nn.Conv3d(16, 16, 3), (1, 16, 6, 5, 7), WinogradConv3d),
    "4x4": (lambda: nn.Conv2d(64, 128, 4, 2, 1), (2, 64, 4, 4), ProductConv2d),
    "transposed": (lambda: nn.ConvTranspose3d(4, 3, 2, 2), (1, 4, 3, 2, 3), ProductConvTranspose3d),
}


@pytest.mark.parametrize("parametrize", [parametrizations.spectral_norm, parametrizations.weight_norm, counted])
@pytest.mark.parametrize("name", PARAMETRIZED)
def test_parametrized_convolutions_ask_for_their_weight_once(name, parametrize, monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda y, taps, dtype, *_, **__: dtype == torch.float32)
    monkeypatch.setattr(winograd_conv, "MANY", 0)
    monkeypatch.setattr(winograd_conv, "may_pay", lambda *_: True)
    torch.manual_seed(0)
    make, shape, ours = PARAMETRIZED[name]
    model, x = nn.Sequential(parametrize(make())), torch.randn(shape)
    exact, kind, keys = copy.deepcopy(model).double(), type(model[0]).__name__, list(model.state_dict())
    assert accelerate(model).swapped[0].where == "0"
    assert kind_of(model[0]) is ours
    assert (type(model[0]).__name__, list(model.state_dict())) == (f"Parametrized{ours.__name__}", keys)
    copied, expected = copy.deepcopy(model), trained(exact, x.double())
    for network in (model, copied):
        for found, value in zip(trained(network, x), expected, strict=True):
            torch.testing.assert_close(found.double(), value, rtol=1e-3, atol=1e-3)
    restore(copied)
    assert (type(copied[0]).__name__, kind_of(copied[0])) == (kind, type(make()))
    remove_parametrizations(model[0], "weight")
    assert type(model[0]) is ours
    restore(model)
    assert type(model[0]) is type(make())


@layouts
def test_a_generator_in_float32_learns_the_same(channels_last, monkeypatch):
    """With convolutions by Winograd's algorithm, behind pads and in front of norms."""
    monkeypatch.setattr(winograd, "pays", lambda y, taps, *_, **__: taps[0] % 16 == taps[1] % 16 == 0)
    monkeypatch.setattr(winograd_conv, "MANY", 0)
    monkeypatch.setattr(winograd_conv, "may_pay", lambda *_: True)
    torch.manual_seed(0)
    model, x = resnet_generator(), torch.randn(2, 3, 32, 40)
    for block in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        for i, layer in enumerate(block):
            block[i] = nn.GELU() if isinstance(layer, nn.ReLU) else layer  # no kink, at which rounding shows
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    plain = copy.deepcopy(model)
    exact = copy.deepcopy(model).double()
    assert {"10.conv_block.1", "10.conv_block.5"} <= {finding.where for finding in accelerate(model).swapped}
    results = [trained(network, z, 5) for network, z in ((model, x), (plain, x), (exact, x.double()))]
    for ours, theirs, truth in zip(*results, strict=True):
        of_ours, of_theirs = ((result - truth).norm() / (truth.norm() + 1e-3) for result in (ours, theirs))
        assert of_ours <= 5 * of_theirs + 1e-6


def test_enlarged_volumes_are_left_and_why():
    (finding,) = accelerate(nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv3d(3, 3, 5, padding=1)))
    assert "convolution of volumes" in finding.why_not


def test_what_is_left_and_why():
    shared = nn.ReLU()
    model = nn.Sequential(
        nn.InstanceNorm2d(3, track_running_stats=True),
        nn.MaxPool2d(3, 2),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(3, 3, 5, padding=1),
        nn.InstanceNorm2d(3),
        shared,
        nn.Conv2d(3, 3, 1),
        shared,
    )
    report = accelerate(model)
    reasons = {finding.where: finding.why_not for finding in report.left}
    assert "tracks running statistics" in reasons["0"]
    assert "not of 2x2 squares" in reasons["1"]
    assert "not the nearest" in reasons["2"]
    assert "not 3x3" in reasons["3"]
    assert "follows something else" in reasons["5"]
    assert type(model[6]) is nn.ReLU
    assert type(model[5]) is InstanceNorm2d
    assert str(report).startswith("where")


def test_a_graph_module_is_not_followed_and_says_so():
    model = torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    reasons = {finding.where: finding.why_not for finding in accelerate(model)}
    assert reasons["1"] == "the model (torch.fx's GraphModule) cannot be followed"


@pytest.mark.parametrize(("slopes", "stay"), [(1, False), (16, True), (32, False)])
def test_norms_before_few_slopes_stay(slopes, stay):
    """Torch's PReLU of few channels_last maps is slow, and torch's norm hands it contiguous ones."""
    norms = [nn.InstanceNorm2d(slopes), nn.InstanceNorm2d(slopes)]
    model = nn.Sequential(norms[0], nn.PReLU(slopes), norms[1], nn.Conv2d(slopes, 3, 1))
    reasons = [str(finding.why_not) for finding in accelerate(model) if "Norm" in finding.what]
    assert ["slopes" in reason for reason in reasons] == [stay, False]
    assert [type(norm) is nn.InstanceNorm2d for norm in norms] == [stay, False]


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel])
def test_wrappers_of_torchs(wrap):
    """As DistributedDataParallel, whose forward nobody can follow: what they run is what counts."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.ReLU())
    wrapped = wrap(model)
    report = accelerate(wrapped)
    ((name, _),) = wrapped.named_children()
    assert [finding.where for finding in report.swapped] == [f"{name}.1", f"{name}.2"]
    assert [finding.where for finding in report.left] == [f"{name}.0"]  # 3x3, of few channels
    restore(wrapped)
    assert type(model[1]) is nn.InstanceNorm2d


class _DenseBlock(nn.ModuleDict):
    """Torchvision's, which is not needed here."""

    __module__ = "torchvision.models.densenet"

    def forward(self, x):
        features = [x]
        for layer in self.values():
            features.append(layer(features))
        return torch.cat(features, 1)


class _DenseLayer(DenseNetLayer):
    __module__ = "torchvision.models.densenet"


def test_dense_blocks_for_who_asks():
    block = _DenseBlock({f"denselayer{i}": _DenseLayer(4 + 2 * i, 2, 2, 0.0) for i in range(3)})
    model, x = nn.Sequential(block), torch.randn(2, 4, 6, 6)
    expected = model(x)
    accelerate(model)
    assert type(model[0]) is _DenseBlock
    assert [finding.what for finding in accelerate(model, save_memory=True)] == ["_DenseBlock -> DenseNetBlock"]
    torch.testing.assert_close(model(x), expected)
    restore(model)
    assert torch.equal(model(x), expected)


def test_without_a_compiler_norms_stay():
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU())
    with native_loops(False):
        (finding,) = accelerate(model)
    assert "no C++ compiler" in finding.why_not
    assert type(model[0]) is nn.InstanceNorm2d


@pytest.mark.parametrize("normalize", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norms_of_layers_that_run_seldom_twice_or_alone(normalize):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.often, self.seldom = normalize(nn.Linear(4, 4)), normalize(nn.Linear(4, 4), n_power_iterations=2)

        def forward(self, x, much=False):
            return self.seldom(self.often(self.often(x))) if much else self.often(x)

    torch.manual_seed(0)
    model, x = Network().double(), torch.randn(3, 4, dtype=torch.float64)
    plain = copy.deepcopy(model)
    accelerate(model)
    for network in (model, plain):
        network.outcomes = [network(x), network(x, True), network(x), network.seldom(x)]
        sum(y.sum() for y in network.outcomes).backward()
        network.outcomes += [network.eval()(x, True), *network.state_dict().values()]
        network.outcomes += [parameter.grad for parameter in network.parameters()]
    assert_close(model.outcomes, plain.outcomes)


class FirstIsCheckpointed(nn.Sequential):
    def __init__(self, normalize, use_reentrant):
        super().__init__(normalize(nn.Conv2d(3, 4, 3)), normalize(nn.Conv2d(4, 3, 3)))
        self.use_reentrant = use_reentrant

    def forward(self, x):
        first, second = self
        return second(checkpoint(first, x, use_reentrant=self.use_reentrant))


@pytest.mark.parametrize("normalize", [spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_spectral_norms_of_layers_that_are_run_again_in_the_backward(normalize, use_reentrant):
    model = FirstIsCheckpointed(normalize, use_reentrant).double()
    other, x = copy.deepcopy(model), torch.randn(2, 3, 8, 8, requires_grad=True, dtype=torch.float64)
    assert accelerate(model).swapped
    for network in model, other:
        network(x).square().sum().backward()
    for ours, torchs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, torchs.grad)


@pytest.mark.parametrize("normalize", [spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_weights_keep_their_layout(normalize, layout):
    model = nn.Sequential(
        normalize(nn.Conv2d(3, 4, 3)), normalize(nn.Conv2d(4, 2, 3)), normalize(nn.ConvTranspose2d(2, 3, 2))
    )
    model.to(memory_format=layout)
    plain, x = copy.deepcopy(model), torch.randn(1, 3, 6, 6)
    accelerate(model)
    torch.testing.assert_close(model(x), plain(x))
    for ours, theirs in zip(model, plain, strict=True):
        assert ours.weight.stride() == theirs.weight.stride()


@pytest.mark.parametrize("normalize", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norms_under_autocast(normalize):
    torch.manual_seed(0)
    model, x = patch_discriminator(normalize), torch.randn(1, 3, 32, 32)
    plain = copy.deepcopy(model)
    accelerate(model)
    results = []
    for network in (model, plain):
        with torch.autocast("cpu", torch.bfloat16):
            y = network(x)
        y.float().sum().backward()
        results.append([y, *(parameter.grad for parameter in network.parameters())])
    for f, e in zip(*results, strict=True):
        assert f.dtype == e.dtype
        torch.testing.assert_close(f, e, rtol=5e-2, atol=5e-2 * e.abs().max().item())


def sequence():
    return nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU())


class HasSequence(nn.Module):
    """For forwards that read the norm alone, most so that torch.fx cannot see it."""

    def __init__(self):
        super().__init__()
        self.seq = sequence()


class Reads(HasSequence):
    def forward(self, x):
        return self.seq(x) if x.mean() < -9 else self.seq[1](x)


class AnotherName(HasSequence):
    def forward(this, x):  # noqa: N805
        if x.mean() > -9:
            for i, layer in enumerate(this.seq):
                x = layer(x) if i < 2 else x
        return x


class Slices(HasSequence):
    def forward(s, x):  # noqa: N805
        return s.seq[:2](x) + x if x.mean() > -9 else x


def patched(model, x):
    return model.seq[1](x) if x.mean() > -9 else x


class Replaced(HasSequence):
    def forward(self, x):
        return self.seq(x)


Replaced.forward = patched


class InBody(HasSequence):
    forward = patched


class InList(HasSequence):
    def __init__(self):
        super().__init__()
        self.ref = [self.seq[1]]

    def forward(self, x):
        return self.ref[0](x) + self.seq(x) if x.mean() > -9 else x


class InClosure(HasSequence):
    def __init__(self):
        super().__init__()
        self.ref = [lambda x: self.seq[1](x)]

    def forward(self, x):
        return self.ref[0](x) if x.mean() > -9 else self.seq(x)


class InPartial(HasSequence):
    def __init__(self):
        super().__init__()
        self.ref = [functools.partial(self.seq[1])]

    def forward(self, x):
        return self.ref[0](x) if x.mean() > -9 else self.seq(x)


class ByMethod(HasSequence):
    def __init__(self):
        super().__init__()
        self.ref = [self.seq[1].forward]

    def forward(self, x):
        return self.ref[0](x) if x.mean() > -9 else self.seq(x)


class ByParent(HasSequence):
    def forward(self, x):
        return next(iter(super().children()))[1](x) if x.mean() > -9 else x


class ByDict(HasSequence):
    def forward(self, x):
        return self.__dict__["_modules"]["seq"][1](x) if x.mean() > -9 else x


class ByGetattr(HasSequence):
    def forward(self, x):
        return self.__getattr__("seq")[1](x) if x.mean() > -9 else x


class ByHelper(HasSequence):
    def forward(self, x):
        return self.first(x) if x.mean() > -9 else x

    def first(me, x):  # noqa: N805
        return me.seq[:2](x)


class Leaf(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = [layer]

    def forward(self, x):
        return self.layer[0](x)

    def called(self, x):
        return self.layer[0](x)


class InAnother(HasSequence):
    def __init__(self):
        super().__init__()
        self.leaf = Leaf(self.seq[1])

    def forward(self, x):
        return self.seq(x) + self.leaf(x)


class MethodOfAnother(InAnother):
    def forward(self, x):
        return self.seq(x) + self.leaf.called(x) if x.mean() > -9 else x


class MethodOfOneThatHasLayers(HasSequence):
    def __init__(self):
        super().__init__()
        self.block = CallsLeaf()

    def forward(self, x):
        return self.block(x) + self.block.first(x) if x.mean() > -9 else x


class CallsLeaf(HasSequence):
    """As RAFT calls its correlations, and with a type in a message, as torchvision's R-CNNs have it."""

    def __init__(self):
        super().__init__()
        self.leaf = Keeps()

    def forward(self, x):
        if x.mean() < -9:
            raise TypeError(f"did not expect such a {type(x)}")
        self.leaf.keep(x)
        return self.seq(x) + self.leaf.kept()

    def first(self, x):
        return self.seq[1](x)


class Keeps(nn.Module):
    def keep(self, x):
        self.x = x

    def kept(self):
        return self.x


def test_methods_of_leaves_and_types_in_messages_are_known():
    model, x = CallsLeaf(), torch.randn(2, 4, 6, 6)
    expected = model(x)
    accelerate(model)
    assert isinstance(model.seq[2], Passed)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["str(type(layer))", "f'{type(layer).__name__}'", "type(layer)", "f'{[type(layer)]}'"])
def test_types_that_are_compared_are_known(kind):
    source = f"def forward(self, x, layer):\n    return {kind} == 7"
    exec(source, scope := {})
    assert asks_for_types(type("Asks", (nn.Module,), {"forward": scope["forward"]})(), ())


class Styled(nn.Module):
    """Hands its children what they need, by names of classes, as MUNIT does; fx cannot follow it."""

    def __init__(self, name="Styling"):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3), nn.InstanceNorm2d(16), Styling())
        self.name = name

    def forward(self, x):
        self.styled(self.body, x.mean())
        return self.body(x)

    def styled(self, body, style):
        for layer in body.modules():
            if layer.__class__.__name__ == "Styling":
                layer.scale = style if style > 0 else -style


class StyledByTorchs(Styled):
    def styled(self, body, style):
        for layer in body.modules():
            if layer.__class__.__name__ == "Conv2d":
                body[2].scale = style if style > 0 else -style


class Styling(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.seen = None, []

    def forward(self, x):
        self.seen.append(x)
        return x * self.scale


def test_names_of_classes_that_stay_may_be_asked_for():
    torch.manual_seed(0)
    model, x = Styled(), torch.randn(1, 16, 8, 8)
    before = copy.deepcopy(model)
    assert len(accelerate(model).swapped) == 2
    assert model.body[2].scale is None
    assert not model.body[2].seen
    torch.testing.assert_close(copy.deepcopy(model)(x), before(x), rtol=1e-4, atol=1e-5)
    assert not accelerate(StyledByTorchs()).swapped


class SetsItsWeight(nn.Module):
    """As MUNIT's spectral norm: makes a weight of another module's at every call."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3)
        self.conv.weight_bar = self.conv.__dict__["_parameters"].pop("weight")

    def forward(self, x):
        self.conv.weight = 2 * self.conv.weight_bar
        return self.conv(x)


def test_following_a_forward_leaves_nothing_in_modules_below():
    model = nn.Sequential(SetsItsWeight(), nn.InstanceNorm2d(16), nn.ReLU())
    accelerate(model)
    assert not hasattr(model[0].conv, "weight")
    x = torch.randn(1, 16, 6, 6)
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))


class WithoutAttributes(HasSequence):
    """As StarGAN v2's generator, which has a filter only if it was asked for."""

    def forward(self, x, mask=None):
        x = self.seq(x)
        return x + self.filter(mask) if mask is not None and x.mean() > 0 else x


def test_what_a_module_has_not_it_does_not_call():
    model = WithoutAttributes()
    assert {"seq.1", "seq.2"} == {finding.where for finding in accelerate(model).swapped}


class ForwardAlone(HasSequence):
    def forward(self, x):
        return self.seq(x) + self.seq[1].forward(x)


class CallOfItsOwn(HasSequence):
    def __call__(self, x):
        return self.seq[1](x)

    def forward(self, x):
        return self.seq(x)


class OrderOfItsOwn(nn.Sequential):
    def __init__(self):
        super().__init__(*sequence())

    def __iter__(self):
        return iter(list(self._modules.values())[:2])


class OfItsOwn(HasSequence):
    def __init__(self):
        super().__init__()
        self.forward = lambda x: self.seq[1](x)

    def forward(self, x):
        return self.seq(x)


class AsksTypes(nn.Sequential):
    def __init__(self):
        super().__init__(*sequence())

    def forward(self, x):
        for layer in self:
            x = layer(x)
            if type(layer) is nn.InstanceNorm2d:
                x = x + 1
        return x


class AsksTypesByValues(AsksTypes):
    def forward(self, x):
        return super().forward(x) if x.mean() < -9 else self.asking(x)

    def asking(self, x):
        for layer in self:
            x = layer(x) + (layer.__class__ is nn.InstanceNorm2d)
        return x


class InLists(nn.Module):
    """Layers in lists and dictionaries, as U-Nets of others have them, and more that only a source shows."""

    stride = 2

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.ModuleList(sequence() for _ in range(2)), nn.ModuleList(sequence() for _ in range(2))
        self.more = nn.ModuleDict({"first": sequence(), "second": sequence()})
        self.norms = nn.ModuleList([self.more["second"][1]])
        self.last = sequence()
        self.last.stride = 2


def as_it_is(function):
    return function


class CallsElements(InLists):
    @staticmethod
    def scaled(x):
        return 2 * x

    @as_it_is
    def forward(self, x):
        if x.shape[-1] % self.stride or len(x) % self.last.stride or len(self.down) < 2:
            raise ValueError(f"{self.__class__.__name__} wants even numbers")
        x = self.scaled(x)
        skips = [down(x) for down in reversed(self.down)]
        for i, (up, skip) in enumerate(zip(self.up, skips, strict=True)):
            x = up(x) + skips[i] * skip
        for _, layer in self.more.items():
            x = x if layer is None or self.down[0] is None else layer(x)
        for layer in self.more.values():
            x = layer(x)
        return self.last(self.down[0](x)) + self.norms[0](x)


class HandsElementsOn(InLists):
    def forward(self, x):
        for layer in self.down:
            x = layer[:2](x) if x.mean() > -9 else x
        return x


class HandsNeighboursOn(InLists):
    def forward(self, x):
        for *others, layer in zip([0, 1], self.down, [torch.relu] * 2, strict=True):
            x = others[1][:2](x) + layer(x) if x.mean() > -9 else x
        return x


class AsksElementsTypes(InLists):
    def forward(self, x):
        for layer in self.last:
            x = layer(x) if layer.__class__.__name__ != "InstanceNorm2d" and x.mean() > -9 else x
        return x


class HandsListOn(InLists):
    def forward(self, x):
        return next(iter(self.down))[:2](x) if x.mean() > -9 else x


class HandsElementOfDictionaryOn(InLists):
    def forward(self, x):
        for name in self.more:
            x = self.more[name][1](x) if x.mean() > -9 else x
        return x


class ReadsLayer(InLists):
    def forward(self, x):
        return self.last.norm(x) if x.mean() > -9 else x

    def __init__(self):
        super().__init__()
        self.last.add_module("norm", self.last[1])


class BareInside(nn.Module):
    """Keeps layers in modules of no class of their own, as VQGAN and MiDaS do; fx can follow it if it is not odd."""

    def __init__(self, odd=False):
        super().__init__()
        self.middle = nn.Module()
        self.middle.first, self.middle.levels = sequence(), nn.ModuleList([nn.Module()])
        self.middle.levels[0].second = nn.Sequential(nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 3))
        self.odd = odd

    def forward(self, x):
        if self.odd and x.mean() < -9:
            raise ValueError
        return self.middle.levels[0].second(self.middle.first(x))


class BareThatRuns(BareInside):
    def __init__(self):
        super().__init__()
        first = self.middle.first
        self.middle.forward = lambda x: first[1](x)

    def forward(self, x):
        return super().forward(x) + self.middle(x).mean()


class BareThatLeadsOn(BareInside):
    def __init__(self):
        super().__init__(odd=True)
        self.middle.layers = [self.middle.first[1]]

    def forward(self, x):
        return super().forward(x) + self.middle.layers[0](x).mean()


def test_layers_in_bare_modules_are_swapped_and_joined():
    torch.manual_seed(0)
    model, x = BareInside().double(), torch.randn(2, 4, 6, 6).double()
    plain = copy.deepcopy(model)
    found = {finding.where for finding in accelerate(model).swapped}
    assert found >= {"middle.first.1", "middle.first.2", "middle.levels.0.second.1"}
    assert_close(trained(model, x), trained(plain, x))


@pytest.mark.parametrize("make", [BareThatRuns, BareThatLeadsOn])
def test_layers_of_bare_modules_that_are_used_otherwise_are_not_joined(make):
    torch.manual_seed(0)
    model, x = make().double(), torch.randn(2, 4, 6, 6).double()
    plain = copy.deepcopy(model)
    accelerate(model)
    assert type(model.middle.first[2]) is nn.ReLU
    assert_close(trained(model, x), trained(plain, x))


@pytest.mark.parametrize("normalize", [spectral_norm, parametrizations.spectral_norm])
def test_spectral_norms_in_what_nobody_calls_are_iterated_together(normalize, monkeypatch):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.middle = nn.Module()
            self.middle.first, self.middle.second = normalize(nn.Linear(4, 4)), normalize(nn.Linear(4, 4))

        def forward(self, x):
            return self.middle.second(self.middle.first(x))

    iterated = []
    iterate = rule_of_spectral_norms.power_iteration
    monkeypatch.setattr(
        rule_of_spectral_norms,
        "power_iteration",
        lambda W, *args, **how: iterated.append(len(W)) or iterate(W, *args, **how),
    )
    model, x = Network().double(), torch.randn(3, 4).double()
    plain = copy.deepcopy(model)
    accelerate(model)
    torch.testing.assert_close(model(x), plain(x))
    assert iterated == [2]


def test_layers_in_lists_whose_forward_only_calls_them_are_joined():
    torch.manual_seed(0)
    model, x = CallsElements().double(), torch.randn(2, 4, 6, 6).double()
    plain = copy.deepcopy(model)
    report = accelerate(model)
    joined = {finding.where for finding in report.swapped if "Act" in finding.what}
    assert joined == {"down.0.1", "down.1.1", "up.0.1", "up.1.1", "more.first.1", "last.1"}  # one norm is called alone
    assert_close([model(x)], [plain(x)])


class Tapped(nn.Module):
    """As CUT's generator: what comes out of layers of a sequence, wanted by their numbers, or of all of it."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(*sequence(), ResidualBlock(4), *sequence())

    def forward(self, x, layers=()):
        if len(layers) == 0:
            return self.model(x)
        taps = []
        for number, layer in enumerate(self.model):
            x = layer(x)
            if number in layers:
                taps.append(x)
        return torch.cat(taps)


@pytest.mark.parametrize("layers", [(), (1, 4, 5)], ids=["called", "tapped"])
def test_layers_inside_of_those_of_a_tapped_sequence_are_joined(layers):
    torch.manual_seed(0)
    model, x = Tapped().double(), torch.randn(2, 4, 6, 6).double()
    plain = copy.deepcopy(model)
    joined = {finding.where for finding in accelerate(model).swapped if "Act" in finding.what}
    assert joined == {"model.3.conv_block.2"}
    assert_close([model(x, layers)], [plain(x, layers)])


HARD = [
    Reads,
    AnotherName,
    Slices,
    Replaced,
    InBody,
    InList,
    InClosure,
    InPartial,
    ByMethod,
    ByParent,
    ByDict,
    ByGetattr,
]
HARD += [HandsElementsOn, HandsNeighboursOn, AsksElementsTypes, HandsListOn, HandsElementOfDictionaryOn, ReadsLayer]
HARD += [MethodOfAnother, MethodOfOneThatHasLayers]
HARD += [ByHelper, InAnother, ForwardAlone, CallOfItsOwn, OrderOfItsOwn, OfItsOwn, AsksTypes, AsksTypesByValues]


@pytest.mark.parametrize("kind", HARD)
def test_what_reads_layers_by_other_ways_is_left(kind):
    torch.manual_seed(0)
    model, x = kind(), torch.randn(2, 4, 6, 6)
    expected = model(x)
    report = accelerate(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, Passed) for module in model.modules())
    assert kind is OrderOfItsOwn or report.left


class Features(nn.Sequential):
    """What comes out of each layer of a kind."""

    def __init__(self, kind, *layers):
        super().__init__(*layers)
        self.kind = kind

    def forward(self, x):
        found = []
        for layer in self:
            x = layer(x)
            if isinstance(layer, self.kind):
                found.append(x)
        return torch.stack(found) if found else x[:0]


@pytest.mark.parametrize("kind", [nn.ReLU, nn.InstanceNorm2d])
def test_layers_are_still_instances_of_what_they_were(kind):
    model, x = Features(kind, *sequence()), torch.randn(2, 4, 6, 6)
    expected = model(x)
    assert accelerate(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    assert isinstance(model[2], Passed) == (kind is nn.ReLU)
    assert isinstance(model[2], nn.ReLU)


def test_enlarging_is_still_an_upsample():
    class Counts(nn.Sequential):
        def forward(self, x):
            for layer in self:
                x = layer(x)
            return x * sum(isinstance(layer, nn.Upsample) for layer in self)

    model, x = Counts(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1)), torch.randn(1, 4, 6, 6)
    expected = model(x)
    accelerate(model)
    assert isinstance(model[0], Passed)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@layouts
@pytest.mark.parametrize("pad", [nn.ReflectionPad2d, nn.ReplicationPad2d])
def test_a_pad_between_enlarging_and_convolution_is_computed_too(pad, channels_last):
    model, x = nn.Sequential(nn.Upsample(scale_factor=2), pad(1), nn.Conv2d(3, 4, 3)).double(), torch.randn(2, 3, 5, 4)
    x = x.double().contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    plain, keys = copy.deepcopy(model), [vars(module).keys() for module in copy.deepcopy(model)]
    assert len(accelerate(model).swapped) == 3
    assert isinstance(model[1], pad)
    torch.testing.assert_close(model(x[0]), plain(x[0]))  # of three dimensions torch enlarges the last alone
    assert_close(trained(copy.deepcopy(model), x), trained(plain, x))
    restore(model[1])
    assert type(model[1]) is pad
    assert [vars(module).keys() for module in model] == keys


@layouts
@pytest.mark.parametrize("pad", [nn.ReflectionPad2d, nn.ReplicationPad2d])
def test_a_pad_that_one_convolution_reads_is_computed_too(pad, channels_last, monkeypatch):
    monkeypatch.setattr(winograd, "pays", lambda y, taps, dtype, *_: dtype == torch.float32 and y[0] > 0)
    monkeypatch.setattr(winograd_conv, "MANY", 0)
    monkeypatch.setattr(winograd_conv, "may_pay", lambda *_: True)
    model, x = nn.Sequential(nn.Conv2d(3, 16, 1), nn.SiLU(), pad(1), nn.Conv2d(16, 16, 3)), torch.randn(2, 3, 9, 7)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    plain, keys = copy.deepcopy(model), [vars(module).keys() for module in copy.deepcopy(model)]
    report = accelerate(model)
    assert [(f.where, f.what) for f in report] == [
        ("2", f"{pad.__name__} -> computed by 3"), ("3", "Conv2d -> WinogradConv2d"),
    ]  # fmt: skip
    assert isinstance(model[2], pad)
    y = model(x)
    assert type(y.grad_fn).__name__ == "_ConvolutionBackward"
    assert y.stride() == plain(x).stride()
    for few in (x[0], x[:0], x.double()):
        torch.testing.assert_close(model.to(few.dtype)(few), plain.to(few.dtype)(few), rtol=1e-4, atol=1e-5)
    found, expected = (trained(network.float(), x) for network in (model, plain))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), plain(x), rtol=1e-4, atol=1e-5)
    for part in (2, 3):
        restore(model[part])
        assert [type(module) for module in model] == [type(module) for module in plain]
        assert [vars(module).keys() for module in model] == keys
        accelerate(model)


class PaddedTwiceRead(nn.Module):
    def __init__(self):
        super().__init__()
        self.pad, self.conv = nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3)

    def forward(self, x):
        padded = self.pad(x)
        return self.conv(padded) + padded[..., 1:-1, 1:-1]


class PaddedInTurns(PaddedTwiceRead):
    def forward(self, x):
        return self.conv(self.pad(self.conv(x)))


@pytest.mark.parametrize(
    "make",
    [
        PaddedTwiceRead,
        PaddedInTurns,
        lambda: nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(16, 16, 3)),
        lambda: nn.Sequential(nn.ReflectionPad2d((1, 1, 1, 0)), nn.Conv2d(16, 16, 3)),
        lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3, padding=1)),
        lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.ReLU(), nn.Conv2d(16, 16, 3)),
        lambda: nn.Sequential(nn.ReflectionPad2d(1), spectral_norm(nn.Conv2d(16, 16, 3))),
    ],
)
def test_pads_of_which_more_is_known_or_read_stay(make):
    model, x = make().eval(), torch.randn(1, 16, 6, 6)
    expected = model(x)
    assert not any("Pad" in finding.what for finding in accelerate(model))
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("between", [(nn.ReflectionPad2d(2),), (nn.ReflectionPad2d(1), nn.ReLU()), (nn.ZeroPad2d(1),)])
def test_other_pads_stay(between):
    report = accelerate(nn.Sequential(nn.Upsample(scale_factor=2), *between, nn.Conv2d(3, 4, 3)))
    assert [finding.where for finding in report.left] == ["0", str(1 + len(between))]
    assert not report.swapped


def test_layers_that_were_swapped_are_known_whatever_else_a_process_holds(monkeypatch):
    monkeypatch.setattr(source, "_MOST", 10)  # objects that are looked at behind a layer of a stranger's
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 3, padding=1))
    assert not accelerate(model).left
    assert isinstance(model[3], UpsampleConv2d)


@pytest.mark.parametrize("what", [None, "model.pt", nn.ReLU])
def test_what_is_no_module_is_refused(what):
    for function in accelerate, restore:
        with pytest.raises(TypeError, match=r"take an nn\.Module"):
            function(what)


class _Residual(nn.Module):
    def __init__(self, normalized, activation=nn.LeakyReLU(0.2), pad=nn.ReflectionPad2d(1)):  # noqa: B008
        super().__init__()
        self.norm = nn.InstanceNorm2d(16) if normalized else None
        self.activation, self.pad, self.conv = activation, pad, nn.Conv2d(16, 16, 3)

    def forward(self, x):
        y = x if self.norm is None else self.norm(x)
        return x + self.conv(self.pad(self.activation(y)))


@pytest.fixture
def frozen():
    gc.freeze()  # what is there already, so that collecting takes no time
    yield
    gc.unfreeze()


@pytest.mark.parametrize("later", [False, True], ids=["made before", "made afterwards"])
def test_what_another_model_has_too_does_its_work_there(later, frozen):
    torch.manual_seed(0)
    x = torch.randn(1, 16, 6, 6)
    one = nn.Sequential(_Residual(True))
    if later:
        accelerate(one)
    other = nn.Sequential(_Residual(False))
    padded, conv = F.pad(F.leaky_relu(x, 0.2), (1, 1, 1, 1), "reflect"), other[0].conv
    before = x + F.conv2d(padded, conv.weight, conv.bias)
    report = accelerate(one)
    assert later or "a module outside of this model has one of them, too" in str(report)
    torch.testing.assert_close(other(x), before)
    restore(one)
    other[0].activation, other[0].pad = nn.SiLU(), nn.ReflectionPad2d(1)
    other.append(other)  # dead, and not collected
    del other
    assert {"0.activation", "0.pad"} < {finding.where for finding in accelerate(one).swapped}


def test_what_others_have_is_looked_for_in_each_model_by_itself(frozen):
    model, other = nn.Sequential(_Residual(True)), nn.Sequential(_Residual(False))
    with traced_once(nn.Sequential(nn.ReLU())):
        found = uses(model)
    assert {*found} == {*model.modules()}
    assert {module for module in found if found[module].elsewhere} == {other[0].activation, other[0].pad}


class _Unhashable(nn.Module):
    __hash__ = None

    def __eq__(self, other):
        return True


def test_modules_of_others_need_no_hash(frozen):
    others = _Unhashable()
    assert accelerate(nn.Sequential(nn.InstanceNorm2d(8), nn.ReLU())).swapped
    del others


def test_of_a_part_its_model_is_no_other(monkeypatch, frozen):
    model = nn.Sequential(nn.Sequential(nn.InstanceNorm2d(8), nn.ReLU()))
    monkeypatch.setattr(gc, "collect", None)
    assert accelerate(model[0]).swapped


def test_restoring_a_part_restores_its_partners():
    model = nn.Sequential(*sequence(), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1))
    x = torch.randn(2, 4, 6, 6)
    expected, keys = model(x), [vars(module).keys() for module in copy.deepcopy(model)]
    for part in range(1, 5):
        accelerate(model)
        assert isinstance(model[2], Passed)
        assert isinstance(model[3], Passed)
        restore(model[part])
        torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
        restore(model)
        assert [vars(module).keys() for module in model] == keys


def test_what_was_parametrized_since_stays_so():
    model, x = nn.Sequential(nn.InstanceNorm2d(3, affine=True), nn.ReLU()), torch.randn(2, 3, 6, 6)
    accelerate(model)
    nn.utils.parametrize.register_parametrization(model[0], "weight", nn.Softplus())
    expected = model(x)
    restore(model)
    assert not isinstance(model[0], InstanceNorm2d)
    torch.testing.assert_close(model(x), expected)


def test_spectral_norms_of_small_weights_stay(monkeypatch):
    """On a CPU, where torch's own are quicker."""
    monkeypatch.undo()
    small = nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 8)), parametrizations.spectral_norm(nn.Linear(8, 8)))
    large = nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 8)), parametrizations.spectral_norm(nn.Linear(512, 512)))
    assert [(found.where, "fewer" in str(found.why_not)) for found in accelerate(small)] == [("0", True), ("1", True)]
    assert [found.why_not for found in accelerate(large)] == [None, None]
    assert not small._forward_pre_hooks
    assert large._forward_pre_hooks
