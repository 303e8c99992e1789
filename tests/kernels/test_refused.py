"""Options that contradict each other, or that no layer could honor, are refused where a layer is made."""

import pytest
import torch
from torch import nn

from lorbms_fast.kernels import (
    BatchNormAct2d,
    CoordConv2d,
    DenseBlock,
    DenseNetBlock,
    InstanceNormAct2d,
    SpectralConv2d,
    instance_norm_act,
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
}


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
