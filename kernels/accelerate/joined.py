"""Layers that do others' work, or do not ask at every call what to do, as `accelerate` puts them into a model."""

from lorbms_fast.kernels.accelerate.swapping import Joined, Swapped
from lorbms_fast.kernels.batch_norm import modules as batch_norm
from lorbms_fast.kernels.instance_norm import modules as instance_norm
from lorbms_fast.kernels.max_pool import MaxPool2x2 as _MaxPool2x2
from lorbms_fast.kernels.upsample_conv import UpsampleConv2d as _UpsampleConv2d
from lorbms_fast.kernels.winograd_conv import WinogradConv2d as _WinogradConv2d


class _Norm(Joined):
    asked_for = frozenset({"eps", "momentum", "affine", "track_running_stats", "num_features"})


class InstanceNormAct2d(_Norm, instance_norm.InstanceNormAct2d):
    """Computes the activations behind it."""


class InstanceNormAct3d(_Norm, instance_norm.InstanceNormAct3d):
    """Computes the activations behind it."""


class BatchNormAct2d(_Norm, batch_norm.BatchNormAct2d):
    """Computes the activations behind it."""


class BatchNormAct3d(_Norm, batch_norm.BatchNormAct3d):
    """Computes the activations behind it."""


class UpsampleConv2d(Joined, _UpsampleConv2d):
    """Enlarges what it reads, and pads it where another layer did."""


class WinogradConv2d(Joined, _WinogradConv2d):
    """Pads what it reads, as another layer did."""


class MaxPool2x2(Swapped, _MaxPool2x2):
    """Of 2x2 squares as long as it is."""


# Whoever initializes layers by the names of their classes, as pix2pix does, looks for torch's.
InstanceNormAct2d.__name__, InstanceNormAct3d.__name__ = "InstanceNorm2d", "InstanceNorm3d"
BatchNormAct2d.__name__, BatchNormAct3d.__name__ = "BatchNorm2d", "BatchNorm3d"
MaxPool2x2.__name__ = "MaxPool2d"
UpsampleConv2d.__name__ = WinogradConv2d.__name__ = "Conv2d"
