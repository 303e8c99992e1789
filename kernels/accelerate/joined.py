"""Layers that do others' work, or do not ask at every call what to do, as `accelerate` puts them into a model."""

from lorbms_fast.kernels import batch_norm, instance_norm, max_pool, upsample_conv, winograd_conv
from lorbms_fast.kernels.accelerate.swapping import Joined, Swapped


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


class UpsampleConv2d(Joined, upsample_conv.UpsampleConv2d):
    """Enlarges what it reads, and pads it where another layer did."""


class WinogradConv2d(Joined, winograd_conv.WinogradConv2d):
    """Pads what it reads, as another layer did."""


class MaxPool2x2(Swapped, max_pool.MaxPool2x2):
    """Of 2x2 squares as long as it is."""
