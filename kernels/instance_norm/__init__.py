"""Instance normalization (Ulyanov et al., 2016) that keeps the memory layout, alone or followed by ReLU."""

from lorbms_fast.kernels.instance_norm.functional import instance_norm, instance_norm_relu
from lorbms_fast.kernels.instance_norm.modules import InstanceNorm2d, InstanceNorm3d, InstanceNormReLU

__all__ = ["InstanceNorm2d", "InstanceNorm3d", "InstanceNormReLU", "instance_norm", "instance_norm_relu"]
