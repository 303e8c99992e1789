"""Instance normalization (Ulyanov et al., 2016) that keeps the memory layout, alone or followed by an activation."""

from lorbms_fast.kernels.instance_norm.functional import instance_norm, instance_norm_act, instance_norm_relu
from lorbms_fast.kernels.instance_norm.modules import (
    InstanceNorm2d,
    InstanceNorm3d,
    InstanceNormAct,
    InstanceNormAct2d,
    InstanceNormAct3d,
    InstanceNormReLU,
)

__all__ = [
    "InstanceNorm2d",
    "InstanceNorm3d",
    "InstanceNormAct",
    "InstanceNormAct2d",
    "InstanceNormAct3d",
    "InstanceNormReLU",
    "instance_norm",
    "instance_norm_act",
    "instance_norm_relu",
]
