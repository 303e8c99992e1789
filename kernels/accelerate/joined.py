"""Layers that do others' work, or do not ask at every call what to do, as `accelerate` puts them into a model."""

from torch import nn

from lorbms_fast.kernels._common.in_form import under_the_name_of
from lorbms_fast.kernels.accelerate.swapping import Joined, Swapped
from lorbms_fast.kernels.batch_norm import modules as batch_norm
from lorbms_fast.kernels.instance_norm import modules as instance_norm
from lorbms_fast.kernels.max_pool import MaxPool2x2 as _MaxPool2x2
from lorbms_fast.kernels.upsample_conv import UpsampleConv2d as _UpsampleConv2d
from lorbms_fast.kernels.winograd_conv import WinogradConv2d as _WinogradConv2d


class _Norm(Joined):
    asked_for = frozenset({"eps", "momentum", "affine", "track_running_stats", "num_features"})


@under_the_name_of(nn.InstanceNorm2d)
class InstanceNormAct2d(_Norm, instance_norm.InstanceNormAct2d):
    """Computes the activations behind it."""


@under_the_name_of(nn.InstanceNorm3d)
class InstanceNormAct3d(_Norm, instance_norm.InstanceNormAct3d):
    """Computes the activations behind it."""


@under_the_name_of(nn.BatchNorm2d)
class BatchNormAct2d(_Norm, batch_norm.BatchNormAct2d):
    """Computes the activations behind it."""


@under_the_name_of(nn.BatchNorm3d)
class BatchNormAct3d(_Norm, batch_norm.BatchNormAct3d):
    """Computes the activations behind it."""


@under_the_name_of(nn.Conv2d)
class UpsampleConv2d(Joined, _UpsampleConv2d):
    """Enlarges what it reads, and pads it where another layer did."""


@under_the_name_of(nn.Conv2d)
class WinogradConv2d(Joined, _WinogradConv2d):
    """Pads what it reads, as another layer did."""


@under_the_name_of(nn.MaxPool2d)
class MaxPool2x2(Swapped, _MaxPool2x2):
    """Of 2x2 squares as long as it is."""
