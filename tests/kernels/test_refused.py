"""Options that contradict each other, or that no layer could honor, are refused where a layer is made."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lorbms_fast.kernels import (
    BatchNormAct2d,
    CoordConv2d,
    DenseBlock,
    DenseNetBlock,
    GroupedBatchNorm2d,
    InstanceNormAct2d,
    InstanceNormReLU,
    ResizeConv2d,
    SpectralConv2d,
    advance_u,
    batch_norm_act,
    coord_conv2d,
    dense_block,
    fold_taps,
    grouped_batch_norm,
    instance_norm,
    instance_norm_act,
    instance_norm_relu,
    pack_layers,
    product_conv,
    spectral_norm_all,
    winograd_conv,
)

REFUSED = {
    "a slope of ReLU": (lambda: InstanceNormAct2d(8, "relu", negative_slope=0.5), "negative_slope 0.5"),
    "a slope of GELU": (lambda: BatchNormAct2d(8, "gelu", negative_slope=0.01), "negative_slope 0.01"),
    "a slope beside a layer's": (lambda: BatchNormAct2d(8, nn.LeakyReLU(0.3), negative_slope=0.5), "negative_slope"),
    "a slope in a call": (lambda: instance_norm_act(torch.ones(1, 2, 3, 3), "silu", 0.2), "negative_slope"),
    "no layers": (lambda: DenseBlock(8, num_layers=0), "num_layers 0"),
    "fewer than none": (lambda: DenseNetBlock(-1, 8), "num_layers -1"),
    "no growth": (lambda: DenseNetBlock(2, 8, growth_rate=0), "growth_rate 0"),
    "no bottleneck": (lambda: DenseNetBlock(2, 8, bn_size=0), "bn_size 0"),
    "less than no dropout": (lambda: DenseNetBlock(2, 8, drop_rate=-0.1), "drop_rate -0.1"),
    "more dropout than all": (lambda: DenseNetBlock(2, 8, drop_rate=2), "drop_rate 2"),
    "coordinates of an even kernel": (lambda: CoordConv2d(8, 4, 4), "kernel_size 4"),
    "coordinates by an even weight": (lambda: coord_conv2d(torch.ones(1, 1, 4, 4), torch.ones(1, 3, 2, 2)), "even"),
    "a dilated layer": (lambda: block(padding=2, dilation=2), r"dilation \(2, 2\)"),
    "more padding": (lambda: block(padding=2), r"padding \(2, 2\), .* \(0, 0\) or \(1, 1\) or 'same' alone"),
    "other edges": (lambda: block(padding=1, padding_mode="reflect"), "padding_mode 'reflect'"),
    "a strided layer": (lambda: block(stride=2), r"stride \(2, 2\)"),
    "a layer in groups": (lambda: block(groups=2), "groups 2"),
    "a layer without a bias": (lambda: block(bias=False), "have a bias"),
    "no weights to fold": (lambda: fold_taps([]), "one at least"),
    "no blocks to pack": (lambda: pack_layers([]), "one layer at least"),
    "a block of no layers": (lambda: pack_layers([([], [])]), "one layer at least"),
    "layers without their bias": (lambda: pack_layers([([torch.ones(2, 2, 3, 3)], [])]), "a bias for each"),
    "no weights to normalize": (lambda: spectral_norm_all([], []), "one at least"),
    "a weight without its vector": (lambda: advance_u([torch.ones(2, 2)], []), "a u for each"),
    "padding by a name": (lambda: winograd_conv(*maps_and_weight(), padding="same"), "padding 'same'"),
    "padding of three": (lambda: product_conv(*maps_and_weight(), padding=(1, 1, 1)), r"padding \(1, 1, 1\)"),
    "no groups": (lambda: grouped_batch_norm(torch.ones(2, 1, 2, 2), torch.ones(1), torch.ones(1), 0), "0 groups"),
    "no groups of a layer": (lambda: GroupedBatchNorm2d(1)(torch.ones(2, 1, 2, 2), 0), "0 groups"),
    "a value a channel": (lambda: GroupedBatchNorm2d(1)(torch.ones(1, 1, 1, 1)), "more than 1 value per channel"),
    "a value a group": (lambda: GroupedBatchNorm2d(1)(torch.ones(2, 1, 1, 1), 2), "more than 1 value per channel"),
}


X = torch.ones(1, 2, 4, 4)
EPS = {
    "instance_norm": lambda eps, impl: instance_norm(X, eps, impl),
    "instance_norm_relu": lambda eps, impl: instance_norm_relu(X, eps, impl),
    "batch_norm_act": lambda eps, impl: batch_norm_act(X, eps=eps, impl=impl),
    "dense_block": lambda eps, impl: dense_block(
        X, [torch.ones(1, 2, 3, 3)], [torch.ones(1)], "instance_norm_relu", eps, impl
    ),
    "InstanceNormAct2d": lambda eps, impl: InstanceNormAct2d(2, eps=eps, impl=impl)(X),
    "BatchNormAct2d": lambda eps, impl: BatchNormAct2d(2, eps=eps, impl=impl)(X),
}


@pytest.mark.parametrize("impl", ["reference", "fused"])
@pytest.mark.parametrize("name", EPS)
def test_a_tensor_is_eps_where_torch_takes_it_for_a_number(name, impl):
    """Its gradient would be none."""
    torch.testing.assert_close(EPS[name](torch.tensor(0.5), impl), EPS[name](0.5, impl))
    for eps in (torch.tensor(0.5, requires_grad=True), torch.tensor([0.5])):
        with pytest.raises(TypeError, match="eps"):
            EPS[name](eps, impl)


def block(**options):
    return DenseBlock(4, 2, 4, conv=lambda *sizes: nn.Conv2d(*sizes, **options))


def maps_and_weight():
    return torch.ones(1, 2, 4, 4), torch.ones(2, 2, 3, 3)


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what):
    make, names = REFUSED[what]
    with pytest.raises(ValueError, match=names):
        make()


@pytest.mark.parametrize("options", [{"dilation": 2}, {"groups": 2}, {"padding_mode": "reflect"}], ids=str)
def test_a_spectral_convolution_has_the_options_of_torchs(options):
    ours, theirs = SpectralConv2d(8, 4, 3, **options), nn.Conv2d(8, 4, 3, padding="same", **options)
    theirs.weight, theirs.bias = nn.Parameter(ours.normalized()), ours.bias
    x = torch.randn(2, 8, 9, 9)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(("kernel_size", "stride"), [(4, 1), (5, 2), ((3, 5), (1, 2))], ids=str)
def test_a_spectral_convolution_pads_by_half_of_what_its_taps_reach(kernel_size, stride):
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    ours = SpectralConv2d(3, 2, kernel_size, stride)
    theirs = nn.Conv2d(3, 2, kernel_size, stride, padding=tuple((side - 1) // 2 for side in sides))
    theirs.weight, theirs.bias = nn.Parameter(ours.normalized()), ours.bias
    x = torch.randn(2, 3, 9, 8)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("padding", [(1, 1), (1, 0)])
def test_a_padding_for_each_dimension(padding):
    x, weight = torch.randn(1, 2, 5, 6), torch.randn(3, 2, 3, 3)
    torch.testing.assert_close(winograd_conv(x, weight, padding=padding), F.conv2d(x, weight, padding=padding))


def test_a_group_of_one_value_leaves_the_averages_alone():
    norm = GroupedBatchNorm2d(1)
    with pytest.raises(ValueError, match="more than 1 value"):
        norm(torch.ones(2, 1, 1, 1), 2)
    assert norm.running_var.item() == 1


def test_layers_are_printed_as_they_are_made():
    layers = CoordConv2d(3, 4), ResizeConv2d(3, 4), GroupedBatchNorm2d(3, decay=0.9), InstanceNormReLU(1e-3)
    assert [layer.extra_repr() for layer in layers] == [
        "3, 4, kernel_size=3",
        "3, 4",
        "3, eps=1e-05, decay=0.9, relu_first=False",
        "eps=0.001",
    ]
