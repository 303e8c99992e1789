"""What others do with models, done with accelerated ones."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from lorbms_fast.kernels import DenseNetBlock, WinogradConv2d, accelerate, use_impl
from lorbms_fast.kernels._common.winograd import cpp as winograd
from lorbms_fast.kernels.accelerate import joined
from lorbms_fast.kernels.product_conv import ProductConvTranspose2d, fused


def counted(model, x):
    """Operations of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        model(x.clone().requires_grad_()).sum().backward()
    return counter.get_flop_counts()["Global"]


@pytest.mark.skipif(not winograd.runs(), reason="no loops")
@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
def test_as_many_operations_are_counted_as_before(channels_last):
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReflectionPad2d(1), nn.Conv2d(32, 32, 3), nn.Conv2d(32, 64, 8, 8),
        nn.Conv2d(64, 256, 4, 2, 1), nn.ConvTranspose2d(256, 64, 4, 2, 1), nn.ConvTranspose2d(64, 32, 8, 8),
        nn.Upsample(scale_factor=2), nn.Conv2d(32, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
    )  # fmt: skip
    x = torch.randn(2, 3, 48, 48)
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    accelerated = copy.deepcopy(model)
    accelerate(accelerated)
    before, after = counted(model, x), counted(accelerated, x)
    assert sum(after.values()) == sum(before.values())
    ours = {operation._qualified_op_name for operation in after}
    assert {"lorbms_fast::winograd_backward_taps", "lorbms_fast::product_to_weight"} <= ours


def test_operations_of_dense_blocks_are_counted_as_their_layers():
    block, x = DenseNetBlock(2, 16, 2, 16), torch.randn(2, 16, 12, 12)
    found = counted(block, x)
    with use_impl("reference"):
        assert sum(found.values()) == sum(counted(block, x).values())


def test_layers_are_initialized_by_the_names_of_their_classes():
    """As pix2pix does, and MUNIT, which asks whether a name begins with "Conv"."""
    layers: list[nn.Module] = [nn.BatchNorm2d(16), nn.ReLU(), nn.InstanceNorm2d(16), nn.SiLU(), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(16, 16, 3), nn.ReflectionPad2d(1), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 512, 4)]
    layers += [nn.Upsample(scale_factor=2), nn.Conv2d(512, 16, 3, padding=1), nn.ConvTranspose2d(16, 3, 2)]
    model, names = nn.Sequential(*layers), [type(layer).__name__ for layer in layers]
    assert accelerate(model).swapped
    found = [type(layer).__name__ for layer in model]
    assert all(name in ours for ours, name in zip(found, names, strict=True))
    assert [name for name in found if "Conv" in name] == [name for name in names if "Conv" in name]
    shown = [repr(layer).partition("(")[0] for layer in model]
    assert [name for name in shown if "Conv" in name] == [
        *("WinogradConv2d", "WinogradConv2d", "ProductConv2d", "UpsampleConv2d", "ProductConvTranspose2d")
    ]
    assert [name for name in shown if "Act" in name or "Pool" in name] == [
        *("BatchNormAct2d", "InstanceNormAct2d", "MaxPool2x2")
    ]


def test_classes_that_are_derived_from_ours_show_their_own_names():
    for layer in (WinogradConv2d, joined.WinogradConv2d):

        class MyConv(layer):
            pass

        assert repr(MyConv(16, 16, 3)).startswith("MyConv(")
        assert repr(spectral_norm(layer(16, 16, 3))).startswith("ParametrizedConv2d(")


class Watching(TorchDispatchMode):
    """As whoever counts memory has it."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def test_a_dense_block_whose_memory_is_counted_is_the_one_that_runs():
    block, x = DenseNetBlock(2, 16, 2, 16), torch.randn(2, 16, 12, 12)
    with Watching():
        watched = block(x)
    assert watched.grad_fn.name() == block(x).grad_fn.name()
    with use_impl("reference"):
        assert watched.grad_fn.name() != block(x).grad_fn.name()


def test_small_transposed_convolutions_ask_for_little(monkeypatch):
    """What `product_conv_transposed` asks takes longer than they do."""
    monkeypatch.setattr(fused, "product_conv_transposed", None)
    layer, x = ProductConvTranspose2d(16, 16, 2, stride=2), torch.randn(1, 16, 4, 4)
    assert layer(x).shape == (1, 16, 8, 8)
    with torch.no_grad():
        layer(x.to(memory_format=torch.channels_last))
